"""Objects that have nothing better than ``__array__``: what they say before they make an array."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np

from dlbridge._errors import refused

_Array: TypeAlias = np.ndarray[Any, Any]

# What an object of another class than NumPy's may carry beside its values.
_BESIDE = {"unit": "unit", "units": "unit", "mask": "mask"}
# What gives the values alone, by the attribute that is there for it.
_BARE = {"magnitude": "magnitude", "value": "value", "filled": "filled()", "data": "data"}


def look_at(x: Any) -> _Array | None:
    """An array of the shape and type that ``x`` says it has; None where it does not say.

    Nothing is loaded: one element stands for all.
    """
    _refuse_what_would_be_lost(x, x, "x")
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
        return None
    try:
        return np.broadcast_to(np.empty((), dtype), shape)
    except (TypeError, ValueError):  # a size that is not known yet
        return None


def plain_array(x: Any, made: Any, like: _Array | None) -> _Array:
    """What the ``__array__`` of ``x`` made, if it is an array, and what ``x`` said of it."""
    if not isinstance(made, np.ndarray):
        raise _refused(x, f"its __array__() returned a {type(made).__name__} instead of an array")
    array: _Array = made
    if isinstance(array, np.ma.MaskedArray) and not np.ma.is_masked(array):
        array = array.data  # its mask hides nothing
    if type(array) is not np.ndarray:
        _refuse_what_would_be_lost(x, array, "np.asanyarray(x)")
    if like is not None and (array.shape, array.dtype) != (like.shape, like.dtype):
        said = f"it says that it is {like.dtype} {like.shape}"
        reason = f"{said}, and its __array__() made {array.dtype} {array.shape}"
        raise _refused(x, reason, "np.asarray(x)")
    return array


def _refuse_what_would_be_lost(x: Any, carrier: Any, spelled: str) -> None:
    """By what the class or the object declares, as for NumPy's own subclasses: others answer to the
    names of what is in their file."""
    for name, what in _BESIDE.items():
        if inspect.getattr_static(carrier, name, None) is not None:
            beside = getattr(carrier, name)
            if not (beside is None or isinstance(beside, bool) or callable(beside)):
                call = next((call for each, call in _BARE.items() if hasattr(carrier, each)), None)
                fix = f"{spelled}.{call}" if call else "np.asarray(x)"
                raise _refused(x, f"the {what} would be lost", f"{fix} (the {what} is lost)")


def _refused(x: Any, reason: str, fix: str | None = None) -> Exception:
    return refused(f"cannot take a {type(x).__name__} in", reason, fix)
