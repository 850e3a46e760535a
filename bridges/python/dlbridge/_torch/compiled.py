"""What torch.compile and strict torch.export trace in place of to_numpy() and to_torch().

torch's own doors, where they give what the default policy gives. At whatever else is asked the
graph ends, and _core decides as it does outside of one. Imported when torch's compiler is.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import torch

from dlbridge import _core, _torch
from dlbridge._policy import host
from dlbridge._torch.devices import DTYPES
from dlbridge.ledger.blocks import open_blocks

# ml_dtypes adds its names to NumPy's, and torch's .numpy() does not know them.
_DTYPES: dict[Any, torch.dtype] = {
    name: getattr(torch, name)
    for name in DTYPES
    if name in np.sctypeDict and np.dtype(name).isbuiltin == 1
}
# The types themselves, and Python's own, as NumPy takes them. torch 2.8 does not trace their names.
_DTYPES |= {np.dtype(name).type: dtype for name, dtype in _DTYPES.items()}
_DTYPES |= {float: torch.float64, int: torch.int64, complex: torch.complex128}
_NUMPYS = frozenset(_DTYPES.values())
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_ARRAYS = (np.ndarray,)  # torch 2.8 does not trace that the type is this one
_NO_TENSORS = (str, bytes, int, float, complex, type(None))


def _outside(function: Any) -> Any:
    """The function itself, where a graph ends."""
    return torch.compiler.disable(  # type: ignore[no-untyped-call,unused-ignore]
        function,
        reason=f"{function.__name__}() of dlbridge has to be called outside of what is compiled, "
        "as it is called here; torch traces to_numpy() and to_torch() under the default policy, "
        "of tensors and arrays with NumPy's dtypes or a dict, list or tuple of them, with no more "
        "than copy=True or a dtype= that holds every value",
    )


# A function that is compiled may be the first that meets a tensor.
_torch.agrees = torch.compiler.disable(_torch.agrees)  # type: ignore[no-untyped-call,unused-ignore]

_numpy_outside = _outside(_core.to_numpy)
_torch_outside = _outside(_core.to_torch)


def _leave_outside(function: Any) -> None:
    """Ends a graph at the function. torch would warn that it knows no such function."""
    outside = _outside(function)

    @torch.compiler.substitute_in_graph(function, skip_signature_check=True)
    def leave(*args: Any, **named: Any) -> Any:
        return outside(*args, **named)


for _function in vars(_core).values():
    if isinstance(_function, BuiltinFunctionType) and _function not in (
        _core.to_numpy,
        _core.to_torch,
    ):
        _leave_outside(_function)


def _has_tensor(x: Any) -> bool:
    if type(x) is dict:
        return any(_has_tensor(each) for each in x.values())
    if type(x) in (list, tuple):
        return any(_has_tensor(each) for each in x)
    return isinstance(x, (torch.Tensor, np.ndarray))


def _is_traced(x: Any, dtype: Any, copy: Any, others: dict[str, Any]) -> bool:
    # The types of a tree's leaves decide about a cast, and of an array torch does not tell it.
    cast = dtype is not None and type(x) in (dict, list, tuple)
    policy = others.get("policy")
    by_default = (
        copy in (None, True)
        and (policy is None or (policy == "host" if isinstance(policy, str) else policy is host))
        and all(each is None or each is False for name, each in others.items() if name != "policy")
    )
    return by_default and not cast and not open_blocks and _has_tensor(x)


def _mapped(x: Any, convert: Callable[[Any], Any]) -> Any:
    if type(x) is dict:
        return {key: _mapped(each, convert) for key, each in x.items()}
    if type(x) in (list, tuple):
        return type(x)([_mapped(each, convert) for each in x])
    return x if isinstance(x, _NO_TENSORS) else convert(x)


def _is_plain(x: Any) -> bool:
    """Whether it is a tensor of which the default policy says what torch's doors say."""
    return (
        type(x) in _TENSORS and x.dtype in _NUMPYS and x.layout is torch.strided and not x.is_meta
    )


def _as_torchs(dtype: Any) -> Any:
    """The torch.dtype of NumPy's, or None."""
    if isinstance(dtype, np.dtype):
        dtype = dtype.name if dtype.isnative else None
    found = _DTYPES.get(dtype, dtype)
    return found if found in _NUMPYS else None


def _casts_quietly(x: torch.Tensor, wanted: torch.dtype) -> bool:
    """Whether no value would be refused, or warned of."""
    if wanted.is_floating_point:
        return not x.dtype.is_complex
    return wanted.is_complex or torch.promote_types(x.dtype, wanted) is wanted


def _changed(x: torch.Tensor, dtype: Any, copy: bool | None) -> torch.Tensor | None:
    """With a copy in C order, where one is asked for; None where torch's cast is not ours."""
    wanted = x.dtype if dtype is None else _as_torchs(dtype)
    if wanted is x.dtype and not copy:
        return x
    if wanted is None or not _casts_quietly(x, wanted):
        return None
    return x.detach().to(wanted, copy=True, memory_format=torch.contiguous_format)


@torch.compiler.substitute_in_graph(_core.to_numpy, skip_signature_check=True)
def to_numpy(x: Any, /, *, dtype: Any = None, copy: Any = None, **others: Any) -> Any:
    def array(leaf: Any) -> Any:
        if type(leaf) in _ARRAYS and dtype is None and copy is None:
            return leaf
        tensor = torch.from_numpy(leaf) if type(leaf) in _ARRAYS else leaf
        if _is_plain(tensor):
            here = tensor.detach() if tensor.is_cpu else tensor.detach().cpu()
            made = _changed(here.resolve_conj().resolve_neg(), dtype, copy)
            if made is not None:
                return made.numpy()
        return _numpy_outside(leaf, dtype=dtype, copy=copy)

    if _is_traced(x, dtype, copy, others):
        return _mapped(x, array)
    return _numpy_outside(x, dtype=dtype, copy=copy, **others)


@torch.compiler.substitute_in_graph(_core.to_torch, skip_signature_check=True)
def to_torch(x: Any, /, *, dtype: Any = None, copy: Any = None, **others: Any) -> Any:
    def tensor(leaf: Any) -> Any:
        given = torch.from_numpy(leaf) if type(leaf) in _ARRAYS else leaf
        if isinstance(given, torch.Tensor) and dtype is None and copy is None:
            return given
        if _is_plain(given):
            made = _changed(given, dtype, copy)
            if made is not None:
                return made
        return _torch_outside(leaf, dtype=dtype, copy=copy)

    if _is_traced(x, dtype, copy, others):
        return _mapped(x, tensor)
    return _torch_outside(x, dtype=dtype, copy=copy, **others)
