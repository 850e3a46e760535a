"""Conversions to a library that is named at run time, and their Plans."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

from dlbridge import _core
from dlbridge._errors import ConversionRefused, refused
from dlbridge._plan import Plan
from dlbridge._policy import Policy
from dlbridge._registry import Library, function_of, library_for, target_of


class SilentCopyWarning(UserWarning):
    """A library made a copy where it had been handed a view, and said nothing."""


# What a library is handed, made of the ManagedTensor that it can take.
_HANDED: dict[str, Callable[[Any], Any]] = {
    "managed": lambda managed: managed,
    "versioned": lambda managed: managed.__dlpack__(max_version=(1, 3)),
    "legacy": lambda managed: managed.__dlpack__(),
    "array": _core.to_numpy,
    "memoryview": memoryview,
}


def to(
    x: Any,
    target: str | ModuleType,
    /,
    *,
    policy: Policy | str | None = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    writable: bool | None = None,
    device: Any = None,
    stream: Any = None,
) -> Any:
    """``x``, from any library, as an array of ``target``: a library's name or its module.

    A tree (dicts, lists, tuples, dataclasses, their like, and what optree or torch's pytree know)
    comes back as a tree of the same structure, with its other leaves untouched. ``order="C"`` and
    ``writable=True`` say what the result has to be; a copy is made where a view would not be so.
    ``stream`` is the one that the memory is ordered on.
    """
    row = target_of(library_for(target))
    return _core.cross_to(x, row, policy, dtype, copy, device, order, writable, stream, False)


def hand_over(library: Library, managed: _core.ManagedTensor, view: bool, may_copy: bool) -> Any:
    """Hands a tensor over, and holds the library to the view that the Plan promised.

    Called by ``_core`` where a library has no compiled bridge.
    """
    take = (library.take_host if managed.device.type == 1 else None) or library.take
    assert take is not None
    try:
        result = function_of(take)(_HANDED[library.handed](managed))
    except (ConversionRefused, MemoryError, ImportError):
        raise
    except Exception as error:
        reason = f"{library.name} refused it: {type(error).__name__}: {error}"
        raise refused(f"cannot hand a tensor to {library.name}", reason) from error
    address = library.address if view and managed.nbytes else None
    if address is not None and address(result) != managed.data_ptr:
        said = f"{library.name} was handed a view and made a copy of it without a word"
        if not may_copy:
            what = f"cannot view this tensor as {library.name}"
            raise refused(what, said, "the call without copy=False to copy")
        warnings.warn(said, SilentCopyWarning, stacklevel=3)
    return result


def explain(
    x: Any,
    target: str | ModuleType,
    /,
    *,
    policy: Policy | str | None = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    writable: bool | None = None,
    device: Any = None,
    stream: Any = None,
) -> Plan:
    """What the conversion of ``x`` to ``target`` would do, and why. Changes nothing.

    A tree gives a tree with a Plan in the place of each array.
    """
    row = target_of(library_for(target))

    def plan_of(x: Any, leaf: bool = True) -> Plan:
        try:
            return _core.explain_plan(
                x, row, policy, dtype, copy, device, order, writable, stream, leaf
            )
        except ConversionRefused as refused:
            # What cannot even be read as a tensor has a Plan too: its refusal.
            return refused.plan

    if not _core.is_tensor(x):
        tree: Plan | None = _core.map_tree(x, plan_of)
        if tree is not None:
            return tree
    return plan_of(x, leaf=False)
