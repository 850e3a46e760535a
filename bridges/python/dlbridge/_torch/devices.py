"""torch's types and devices by DLPack's numbers, and what only torch can do on a device."""

from __future__ import annotations

import functools

import torch

from dlbridge._core import dtype_triple

# fmt: off
_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex32", "complex64", "complex128", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2",
)
# fmt: on
DTYPES = tuple(name for name in _NAMES if hasattr(torch, name))
TRIPLES = {getattr(torch, name): dtype_triple(name) for name in DTYPES}
_DTYPES = {triple: dtype for dtype, triple in TRIPLES.items()}

DEVICE_TYPES = {
    "cpu": 1,
    "cuda": 10 if torch.version.hip else 2,
    "xpu": 14,
    "mps": 8,
    "maia": 17,
    "privateuseone": 12,
}
_DEVICE_NAMES = {value: name for name, value in DEVICE_TYPES.items()}


def to_device(x: torch.Tensor, device_type: int, device_id: int) -> torch.Tensor:
    """The tensor on one of torch's own devices."""
    return x.detach().to(_device(device_type, device_id))


@functools.cache
def _device(device_type: int, device_id: int) -> torch.device:
    return torch.device(_DEVICE_NAMES[device_type], device_id)


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
        name = _DEVICE_NAMES.get(device_type, "")
        if name == "privateuseone":
            name = torch._C._get_privateuse1_backend_name()
        module = getattr(torch, name, None)
        if module is None or not module.is_available():
            return False
        _DEVICES_SEEN.add(device_type)
    return True
