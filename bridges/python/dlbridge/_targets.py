"""Conversions to a library that is named at run time, and their Plans."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from dlbridge import _core
from dlbridge._errors import ConversionRefused
from dlbridge._plan import Plan
from dlbridge._policy import Policy

# Where each library takes a DLPack producer in.
_IMPORTERS = {
    "jax": ("jax.dlpack", "from_dlpack"),
    "cupy": ("cupy", "from_dlpack"),
    "array_api_strict": ("array_api_strict", "from_dlpack"),
}


def _name_of(target: str | ModuleType) -> str:
    if isinstance(target, ModuleType):
        return target.__name__.partition(".")[0]
    if isinstance(target, str):
        return target
    raise TypeError(
        f"target must be the name of a library or its module, not {type(target).__name__}"
    )


def _checked_name(target: str | ModuleType) -> str:
    name = _name_of(target)
    if name in ("numpy", "torch", "dlbridge") or name in _IMPORTERS:
        return name
    if isinstance(target, ModuleType) and hasattr(target, "from_dlpack"):
        return name
    known = ", ".join(repr(each) for each in ("numpy", "torch", "dlbridge", *_IMPORTERS))
    raise ValueError(
        f"target {name!r} is unknown; use one of {known}, or a module with a from_dlpack()"
    )


def _row_of(name: str) -> str:
    """The module's row of what the library can take, as it is set up now."""
    if name == "jax" and importlib.import_module("jax").config.jax_enable_x64:
        return "jax with x64"
    return name


def to(
    x: Any,
    target: str | ModuleType,
    /,
    *,
    policy: Policy | str | None = None,
    dtype: Any = None,
    copy: bool | None = None,
    device: Any = None,
) -> Any:
    """``x``, from any library, as an array of ``target``: a library's name or its module."""
    name = _checked_name(target)
    if name == "torch":
        return _core.to_torch(x, policy=policy, dtype=dtype, copy=copy, device=device)
    if name == "numpy" and device is None:
        return _core.to_numpy(x, policy=policy, dtype=dtype, copy=copy)
    managed = _core.for_consumer(x, _row_of(name), policy, dtype, copy, device)
    if name == "dlbridge":
        return managed
    if name == "numpy":
        return _core.to_numpy(managed, policy=policy)
    if name in _IMPORTERS:
        module, function = _IMPORTERS[name]
        return getattr(importlib.import_module(module), function)(managed)
    assert isinstance(target, ModuleType)
    return target.from_dlpack(managed)


def explain(
    x: Any,
    target: str | ModuleType,
    /,
    *,
    policy: Policy | str | None = None,
    dtype: Any = None,
    copy: bool | None = None,
    device: Any = None,
) -> Plan:
    """What the conversion of ``x`` to ``target`` would do, and why. Changes nothing."""
    name = _checked_name(target)
    try:
        plan: Plan = _core.explain_plan(x, _row_of(name), policy, dtype, copy, device)
    except ConversionRefused as refused:
        # What cannot even be read as a tensor has a Plan too: its refusal.
        return refused.plan
    return plan
