"""torch's types and devices by DLPack's numbers, and what only torch can do on a device."""

from __future__ import annotations

import functools

import torch

from dlbridge._core import torch_vocabulary

_VOCABULARY = torch_vocabulary()

DTYPES = tuple(name for name in _VOCABULARY["dtypes"] if hasattr(torch, name))
TRIPLES = {getattr(torch, name): _VOCABULARY["dtypes"][name] for name in DTYPES}
_DTYPES = {triple: dtype for dtype, triple in TRIPLES.items()}

DEVICE_TYPES = _VOCABULARY["devices"]
if torch.version.hip:  # such a torch calls its devices "cuda"
    DEVICE_TYPES["cuda"] = DEVICE_TYPES.pop("hip")
_DEVICE_NAMES = {value: name for name, value in DEVICE_TYPES.items()}


def dtype_of(triple: tuple[int, int, int]) -> torch.dtype:
    """torch's name for a type of DLPack's, which this torch has."""
    dtype: torch.dtype = _DTYPES[triple]
    return dtype


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
        # torch.mps cannot be asked before 2.5.
        module = torch.backends.mps if name == "mps" else getattr(torch, name, None)
        if module is None or not module.is_available():
            return False
        _DEVICES_SEEN.add(device_type)
    return True
