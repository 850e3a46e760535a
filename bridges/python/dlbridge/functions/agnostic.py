"""Array-agnostic code: arguments in the library of the code, answers in that of its caller."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from dlbridge import Policy, explain, libraries, to
from dlbridge.functions.later import changed
from dlbridge.functions.sending import Wrapped
from dlbridge.ledger.blocks import policy_in_force
from dlbridge.trees import converted, is_array, leaves, library_of, mapped

# Where a library keeps its functions, if not in the module of its name.
_NAMESPACES = {"jax": "jax.numpy", "mlx": "mlx.core"}
# Targets that only hold memory.
_NO_FUNCTIONS = frozenset(
    {"array", "ctypes", "dlbridge", "memoryview", "PIL", "process", "pyarrow.Array"}
)


def as_namespace(
    target: str | ModuleType, /, *arrays: Any, policy: Policy | str | None = None
) -> tuple[ModuleType, tuple[Any, ...]]:
    _check_target("as_namespace()", target, 'xp, (x,) = dlbridge.as_namespace("numpy", x)')
    own = target if isinstance(target, str) else target.__name__
    if own in _NO_FUNCTIONS:
        known = (each.name for each in libraries.known() if each.is_target)
        names = ", ".join(repr(each) for each in known if each not in _NO_FUNCTIONS)
        raise ValueError(
            f"as_namespace() gives a library's functions, and {own!r} has none of arrays; use one "
            f"of {names}, or dlbridge.to(x, {own!r}) for the array alone"
        )
    if isinstance(target, ModuleType):
        name: Any = "jax" if own.startswith("jax.") else target
        return target, converted(arrays, name, policy=policy)
    made = converted(arrays, target, policy=policy)
    return importlib.import_module(_NAMESPACES.get(target, target)), made


def _check_target(function: str, target: object, example: str) -> None:
    if not isinstance(target, str | ModuleType):
        met = type(target).__name__
        raise TypeError(f"{function} takes a library's name or its module, not {met}: {example}")


def returns_like(x: Any, /) -> Callable[[Any], Any]:
    first = next((leaf for leaf in leaves(x) if is_array(leaf)), None)
    if first is None:
        raise TypeError(
            f"returns_like() needs an array to be like, and there is none in this "
            f"{type(x).__name__}"
        )
    name = library_of(first)
    if name is None:
        raise TypeError(
            "returns_like() needs an array of a library that takes arrays, and no such library is "
            f"known of a {type(first).__qualname__}; dlbridge.register() makes it known"
        )
    return functools.partial(_all_like, name, _device_of(name, first))


def _device_of(name: str, first: Any) -> Any:
    return first.device if name == "torch" and not first.is_cpu else None


def _all_like(name: str, device: Any, answer: Any) -> Any:
    return mapped(answer, _like(name, device))


def _like(name: str, device: Any) -> Callable[[Any], Any]:
    """What brings a leaf to the library, on that device."""
    target: Any = name if libraries.named(name) is not None else sys.modules[name]

    def like(leaf: Any) -> Any:
        if name == "numpy" and isinstance(leaf, np.generic):
            return leaf
        if is_array(leaf) or isinstance(leaf, np.number | np.bool_):
            dtype = _dtype_in_jax(leaf) if name == "jax" else None
            return to(leaf, target, dtype=dtype, device=device)
        return leaf

    return like


def _dtype_in_jax(answer: Any) -> Any:
    """It has 64-bit types only where it is told to; otherwise it takes the 32-bit ones."""
    said = getattr(answer, "dtype", None)
    # Other libraries have spellings of their own, and a Plan takes longer.
    dtype = said.name if isinstance(said, np.dtype) else explain(answer, "dlbridge").dtype
    if dtype in libraries.WIDE:
        return importlib.import_module("jax").dtypes.canonicalize_dtype(dtype)
    return None


def accepts(
    target: str | ModuleType, /, *, policy: Policy | str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    _check_target("accepts()", target, '@dlbridge.accepts("numpy")')
    return functools.partial(_Accepting, target, policy)


class _Accepting(Wrapped):
    """What ``accepts`` makes of a function."""

    def __init__(
        self, target: str | ModuleType, policy: Policy | str | None, function: Callable[..., Any]
    ) -> None:
        super().__init__(function)
        self.target = target
        own = target if isinstance(target, str) else target.__name__.partition(".")[0]
        self.not_foreign = (own, None)
        self.policy = policy
        self.function = function
        if sys.version_info >= (3, 12) and inspect.iscoroutinefunction(function):
            inspect.markcoroutinefunction(self)  # for whoever looks before it calls

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        met: dict[int, tuple[Any, Any]] = {}
        all_given = {"*arguments": arguments, "**named": named}
        here = converted(all_given, self.target, policy=self.policy, met=met)
        answer = self.function(*here["*arguments"], **here["**named"])
        for foreign, arrived in met.values():
            if arrived is not foreign and (name := library_of(foreign)) not in self.not_foreign:
                break
        else:
            return answer
        # The same objects as arrived are the caller's own; held, for as long as they may come back.
        known = {id(arrived): (given, arrived) for given, arrived in met.values()}
        like = _like(name, _device_of(name, foreign))
        # A coroutine may answer when the block is over; an array is here.
        policy = self.policy if is_array(answer) else policy_in_force(self.policy)

        def back(leaf: Any) -> Any:
            given = known.get(id(leaf), (None,))[0]
            # A copy may have been written to since, and the caller's own would not tell.
            if given is not leaf and (given is None or self._copied(given, policy)):
                return like(leaf)
            return given

        return changed(answer, lambda part: mapped(part, back))

    def _copied(self, given: Any, policy: Policy | str | None) -> bool:
        """Whether what arrived is a copy that the function may write to."""
        plan = explain(given, self.target, policy=policy)
        return plan.writable and not plan.view

    def parts(self) -> tuple[Any, ...]:
        if isinstance(self.target, ModuleType):  # which cannot be sent
            return _accepting_module, (self.target.__name__, self.policy, self.function)
        return _Accepting, (self.target, self.policy, self.function)


def _accepting_module(
    name: str, policy: Policy | str | None, function: Callable[..., Any]
) -> _Accepting:
    return _Accepting(importlib.import_module(name), policy, function)
