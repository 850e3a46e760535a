"""What the module asks of torch in Python: the companion extension, and the portable road.

Imported when the first tensor comes by; torch is there by then, or is asked for by to_torch().
"""

from __future__ import annotations

import functools
import importlib
import re
import weakref
from typing import Any

import torch

from dlbridge._core import conditions, dtype_triple

_VERSION = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])

# torch's importer takes versioned capsules since it has an exchange table (2.9).
TENSOR_BASE = torch._C.TensorBase
TAKES_VERSIONED = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


def load_companion() -> Any:
    """The capsule of the companion extension built for exactly this torch, or None."""
    name = "_torch_" + re.sub(r"[^0-9A-Za-z]", "_", torch.__version__)
    try:
        return importlib.import_module(f"dlbridge.{name}").companion
    except ModuleNotFoundError:
        return None


# --- the portable road ------------------------------------------------------------------------

# fmt: off
_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex32", "complex64", "complex128", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2",
)
# fmt: on
DTYPES = tuple(name for name in _NAMES if hasattr(torch, name))
_TRIPLES = {getattr(torch, name): dtype_triple(name) for name in DTYPES}

_DTYPES = {triple: dtype for dtype, triple in _TRIPLES.items()}

_DEVICE_TYPES = {
    "cpu": 1,
    "cuda": 10 if torch.version.hip else 2,
    "xpu": 14,
    "mps": 8,
    "maia": 17,
    "privateuseone": 12,
}

_C = conditions()
_KEY = torch._C.DispatchKey
_keys_of = torch._C._dispatch_keys

# The key sets of ordinary tensors: nothing in them changes what the memory means.
_ORDINARY = {_keys_of(torch.empty(0)).raw_repr()}
with torch.inference_mode():
    _ORDINARY.add(_keys_of(torch.empty(0)).raw_repr())

_FUNCTORCH = [
    getattr(_KEY, name)
    for name in ("FuncTorchBatched", "FuncTorchGradWrapper")
    if hasattr(_KEY, name)
]
_NOTHING = ((), (), (0, 0, 1), (0, 0))


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
        fix = "x.get_data()"
    return [_C["wrapper_subclass"]], name, fix


def _has_tangent(x: torch.Tensor) -> bool:
    if torch.autograd.forward_ad._current_level < 0:
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
        "nested",
        "dispatch_subclass",
        "wrapper_subclass",
        "fake",
        "quantised",
        "meta",
    )
}
_WITHOUT_STRIDES = {_C["sparse"], _C["opaque_layout"]}


def describe(x: torch.Tensor) -> tuple[Any, ...]:
    """What plan() has to know: conditions, data, shape, strides, type, device, detail, fix."""
    keys = _keys_of(x)
    detail = fix = ""
    found: list[int] = []
    if keys.raw_repr() not in _ORDINARY:
        found, detail, fix = _odd(x, keys)
    without_shape = not _WITHOUT_SHAPE.isdisjoint(found)
    if x.requires_grad:
        found.append(_C["in_graph"])
    if without_shape:
        return tuple(found), 0, *_NOTHING, detail, fix
    if _has_tangent(x):
        found.append(_C["forward_dual"])
    triple = _TRIPLES.get(x.dtype, (0, 0, 1))
    if triple[1] == 0:
        detail = str(x.dtype).removeprefix("torch.")
        narrow = re.fullmatch(r"u?int[1-7]", detail) is not None
        found.append(_C["padded_sub_byte"] if narrow else _C["inexpressible_dtype"])
    shape = tuple(x.shape)
    device = x.device
    place = (_DEVICE_TYPES.get(device.type, 12), device.index or 0)
    if not _WITHOUT_STRIDES.isdisjoint(found):
        return tuple(found), 0, shape, (), triple, place, detail, fix
    strides = x.stride()
    data = 0
    if x.numel() and _C["zero_tensor"] not in found:
        storage = x.untyped_storage()
        needed = (x.storage_offset() + _extent(shape, strides)) * x.itemsize
        if storage.data_ptr() == 0 or needed > storage.nbytes():
            found.append(_C["freed_storage"])
        else:
            data = x.data_ptr()
    return tuple(found), data, shape, strides, triple, place, detail, fix


# What would take a storage's memory away from its views. share_memory_() moves a storage's contents
# and frees the old ones (torch 2.15).
_MOVERS = ("share_memory_", "_share_fd_cpu_", "_share_filename_cpu_")


class StorageInUseError(RuntimeError, BufferError):
    """A storage would move while views of it are alive: a RuntimeError, as torch's own refusals."""


def guard(storage: torch.UntypedStorage) -> None:
    """Makes a storage refuse what would take its memory away while it has views.

    Once, at its first view: its own methods for that are shadowed by ones that look at the number
    of views, which the module keeps in ``_dlbridge_views``; and it is not resizable any more, as
    after ``Tensor.numpy()``.
    """
    _watch_lazy_clones()
    if storage.device.type != "cpu":
        return
    # numpy() marks the storage; an empty tensor of bytes over it will do for any type.
    torch.empty(0, dtype=torch.uint8).set_(storage, 0, (0,), (1,)).numpy()
    if not storage.is_shared():
        for name in _MOVERS:
            setattr(storage, name, functools.partial(_move, weakref.ref(storage), name))


def _move(
    reference: weakref.ref[torch.UntypedStorage], name: str, *args: object, **kwargs: object
) -> Any:
    storage = reference()
    assert storage is not None  # it is called through the storage
    if storage.__dict__["_dlbridge_views"].count:
        raise StorageInUseError(
            "cannot move this storage into shared memory while views of it are alive in another "
            "library (they would read freed memory); use share_memory_() before the conversion, "
            "or del the views first"
        )
    for each in _MOVERS:
        storage.__dict__.pop(each, None)
    return getattr(storage, name)(*args, **kwargs)


@functools.cache
def _watch_lazy_clones() -> None:
    """Copy-on-write clones of a storage with views raise, as they do on the linked road.

    The first write would move the tensor and leave the memory to the clone alone (torch 2.15): the
    views would lose it with the clone, and until then what is written to them would show there.
    """
    owners: tuple[Any, ...] = (torch, torch.Tensor)
    for owner in owners:
        original = getattr(owner, "_lazy_clone", None)
        if original is not None:
            owner._lazy_clone = _without_views(original)


def _without_views(original: Any) -> Any:
    @functools.wraps(original)
    def lazy_clone(x: torch.Tensor) -> Any:
        views = x.untyped_storage().__dict__.get("_dlbridge_views")
        if views is not None and views.count:
            raise StorageInUseError(
                "cannot make a copy-on-write clone of a tensor while views of its memory are alive "
                "in another library (they would follow neither of the two); use clone(), or del "
                "the views first"
            )
        return original(x)

    return lazy_clone


def quick() -> tuple[Any, ...]:
    """What the module needs to describe an ordinary tensor without this file."""
    return (
        _keys_of,
        _ORDINARY,
        _TRIPLES,
        torch.autograd.forward_ad.__dict__,
        torch.strided,
        torch.Tensor,
        torch.nn.Parameter,
        torch._C.StorageBase,
    )


def prepare(x: torch.Tensor, densify: bool, to_host: bool) -> torch.Tensor:
    """A private tensor for what only torch can do."""
    prepared = x.detach()
    if densify:
        prepared = prepared.to_dense()
    if to_host:
        prepared = prepared.cpu()
    return prepared


def deliver(capsule: object) -> torch.Tensor:
    """The tensor over a capsule's memory."""
    return torch.utils.dlpack.from_dlpack(capsule)


# --- both roads -------------------------------------------------------------------------------


def to_device(x: torch.Tensor, device_type: int, device_id: int) -> torch.Tensor:
    """The tensor on one of torch's own devices."""
    return x.detach().to(_device(device_type, device_id))


@functools.cache
def _device(device_type: int, device_id: int) -> torch.device:
    name = {value: key for key, value in _DEVICE_TYPES.items()}[device_type]
    return torch.device(name, device_id)


def empty(
    shape: tuple[int, ...], triple: tuple[int, int, int], device_type: int, device_id: int
) -> torch.Tensor:
    """Memory of torch's own for a copy, on one of its devices."""
    return torch.empty(shape, dtype=_DTYPES[triple], device=_device(device_type, device_id))


def current_stream(device_type: int, device_id: int) -> int:
    """The handle of the stream that torch works on now: for a torch whose table does not tell."""
    if device_type in (2, 10):
        return int(torch.cuda.current_stream(device_id).cuda_stream)
    return 0


# torch.cuda writes down here whether it has been used.
CUDA_NAMES = torch.cuda.__dict__


_DEVICES_SEEN = {1}


def has_device(device_type: int) -> bool:
    """Whether this torch, on this machine, has a device of that DLPack type."""
    if device_type not in _DEVICES_SEEN:
        name = {value: key for key, value in _DEVICE_TYPES.items()}.get(device_type, "")
        if name == "privateuseone":
            name = torch._C._get_privateuse1_backend_name()
        module = getattr(torch, name, None)
        if module is None or not module.is_available():
            return False
        _DEVICES_SEEN.add(device_type)
    return True
