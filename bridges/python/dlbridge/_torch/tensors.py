"""What the portable road asks torch about a tensor, in Python: whatever is not ordinary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.parameter import (  # type: ignore[attr-defined,unused-ignore]
    UninitializedTensorMixin,
)

from dlbridge._core import conditions
from dlbridge._torch.devices import DEVICE_TYPES, TRIPLES

_C = conditions()
_KEY = torch._C.DispatchKey
_keys_of = torch._C._dispatch_keys
_set_trace = torch._C._set_tracing_state  # type: ignore[attr-defined,unused-ignore]


def host_tensor() -> torch.Tensor:
    """A new, empty tensor that is ordinary, also in a mode that would make another one."""
    return torch.utils.dlpack.from_dlpack(np.empty(0, np.uint8))


def _named(keys: Any) -> Any:
    """What stands for a key set: before torch 2.5 its text is all that can be compared."""
    return keys.raw_repr() if hasattr(keys, "raw_repr") else repr(keys)


# The key sets of ordinary tensors: nothing in them changes what the memory means.
_ORDINARY = set()
for _inference in (False, True):
    with torch.inference_mode(_inference):
        _ORDINARY.add(_named(_keys_of(host_tensor())))

# What torch includes by itself on a thread, and what modes add.
_BY_ITSELF = torch._C.DispatchKeySet(_KEY.BackendSelect).add(_KEY.ADInplaceOrView)
_MODES = torch._C.DispatchKeySet(_KEY.Python).add(_KEY.PythonTLSSnapshot)


@contextmanager
def unwatched() -> Iterator[None]:
    """A block in which torch does what it is asked for and nobody is told: work of our own."""
    trace = torch._C._get_tracing_state()
    if trace is not None:
        _set_trace(None)
    try:
        excluded = torch._C._dispatch_tls_local_exclude_set() | _MODES
        with torch._C._ForceDispatchKeyGuard(_BY_ITSELF, excluded):
            yield
    finally:
        if trace is not None:
            _set_trace(trace)


_FUNCTORCH = [
    getattr(_KEY, name)
    for name in ("FuncTorchBatched", "FuncTorchGradWrapper")
    if hasattr(_KEY, name)
]


class Description(NamedTuple):
    """What plan() has to know. Read by name in portable_torch.cpp."""

    conditions: tuple[int, ...]
    data: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dtype: tuple[int, int, int] = (0, 0, 1)
    device: tuple[int, int] = (0, 0)
    detail: str = ""
    fix: str = ""


def _odd(x: torch.Tensor, keys: Any) -> tuple[list[int], str, str]:
    """The conditions that the dispatch keys tell, and what a message says of them."""
    if keys.has(_KEY.Functionalize):
        return [_C["functionalised"]], "", ""
    if any(keys.has(key) for key in _FUNCTORCH):
        return [_C["functorch"]], "", ""
    if x.is_nested:
        return [_C["nested"]], "", ""
    if keys.has(_KEY.Python):
        return _subclass(x)
    found = []
    if keys.has(_KEY.Conjugate):
        found.append(_C["conj_bit"])
    if keys.has(_KEY.Negative):
        found.append(_C["neg_bit"])
    if x.is_quantized:
        found.append(_C["quantised"])
    elif x.is_meta:
        found.append(_C["meta"])
    elif x.layout is not torch.strided:
        mkldnn = x.layout is torch._mkldnn  # type: ignore[attr-defined,unused-ignore]
        found.append(_C["opaque_layout"] if mkldnn else _C["sparse"])
    elif torch._is_zerotensor(x):
        found.append(_C["zero_tensor"])
    return found, "", ""


def _subclass(x: torch.Tensor) -> tuple[list[int], str, str]:
    name = type(x).__name__
    if name == "FakeTensor":
        return [_C["fake"]], name, ""
    # Looked at without the subclass's own rules, which may do anything.
    with torch._C._DisableTorchDispatch():
        try:
            address = torch.Tensor.data_ptr(x)
        except RuntimeError:
            address = 0
    if address:
        return [_C["dispatch_subclass"]], name, ""
    fix = ""
    if hasattr(x, "full_tensor"):
        fix = "x.full_tensor()"
    elif hasattr(x, "get_mask"):
        fix = "x.get_data() (the mask is lost)"
    return [_C["wrapper_subclass"]], name, fix


def _has_tangent(x: torch.Tensor) -> bool:
    # Torch looks for one only where there is a storage.
    if torch.autograd.forward_ad._current_level < 0 or x.layout is not torch.strided:
        return False
    tangent = torch.autograd.forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
    return tangent is not None


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


_WITHOUT_SHAPE = {
    _C[name]
    for name in (
        "functionalised",
        "functorch",
        "uninitialised",
        "nested",
        "dispatch_subclass",
        "wrapper_subclass",
        "fake",
        "quantised",
        "meta",
    )
}
_WITHOUT_STRIDES = {_C["sparse"], _C["opaque_layout"]}


@unwatched()
def describe(x: torch.Tensor) -> Description:
    keys = _keys_of(x)
    detail = fix = ""
    found: list[int] = []
    if isinstance(x, UninitializedTensorMixin):
        found = [_C["uninitialised"], *([_C["meta"]] if x.is_meta else [])]
    elif _named(keys) not in _ORDINARY:
        found, detail, fix = _odd(x, keys)
    without_shape = not _WITHOUT_SHAPE.isdisjoint(found)
    if x.requires_grad:
        found.append(_C["in_graph"])
    if without_shape:
        return Description(tuple(found), detail=detail, fix=fix)
    if _has_tangent(x):
        found.append(_C["forward_dual"])
    triple = TRIPLES.get(x.dtype, (0, 0, 1))
    if triple[1] == 0:
        detail = str(x.dtype).removeprefix("torch.")
        narrow = re.fullmatch(r"u?int[1-7]", detail) is not None
        found.append(_C["padded_sub_byte"] if narrow else _C["inexpressible_dtype"])
    shape = tuple(x.shape)
    device = x.device
    place = (DEVICE_TYPES.get(device.type, DEVICE_TYPES["privateuseone"]), device.index or 0)
    if not _WITHOUT_STRIDES.isdisjoint(found):
        return Description(tuple(found), 0, shape, (), triple, place, detail, fix)
    strides = x.stride()
    data = 0
    if x.numel() and _C["zero_tensor"] not in found:
        storage = x.untyped_storage()
        needed = (x.storage_offset() + _extent(shape, strides)) * x.itemsize
        if storage.data_ptr() == 0 or needed > storage.nbytes():
            found.append(_C["freed_storage"])
        else:
            data = x.data_ptr()
    return Description(tuple(found), data, shape, strides, triple, place, detail, fix)


class Tools(NamedTuple):
    """What the module needs to describe an ordinary tensor without this file. Read by name too."""

    keys_of: Any = _keys_of
    ordinary_keys: Any = _ORDINARY
    dtypes: Any = TRIPLES
    forward_mode: Any = torch.autograd.forward_ad.__dict__
    tensor: Any = torch.Tensor
    parameter: Any = torch.nn.Parameter
    storage: Any = torch._C.StorageBase
    is_tracing: Any = torch._C._is_tracing
    in_function_mode: Any = torch._C._is_torch_function_mode_enabled
    count_modes: Any = torch._C._len_torch_dispatch_stack
    in_transform: Any = torch._C._are_functorch_transforms_active
    lift: Any = torch.ops.aten.lift_fresh.default
    from_numpy: Any = torch.from_numpy
    empty_array: Any = partial(np.empty, 0)
    host_tensor: Any = host_tensor
