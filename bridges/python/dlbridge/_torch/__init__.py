"""What the module asks of torch in Python, by the names that are listed here.

Imported when the first tensor comes by; torch is there by then, or is asked for by to_torch().
The room is not called ``torch``: ``dlbridge.torch`` would be taken for torch itself.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import torch

from dlbridge._core import companion_agrees
from dlbridge._torch.devices import (  # noqa: F401
    CUDA_NAMES,
    DTYPES,
    current_stream,
    dtype_of,
    empty,
    has_device,
    to_device,
)
from dlbridge._torch.storages import guard  # noqa: F401
from dlbridge._torch.tensors import Tools, describe, unwatched  # noqa: F401

# Where it is entered, torch is asked without the __torch_function__ of a subclass or of a mode.
WithoutTorchFunction = torch._C.DisableTorchFunction

# torch's importer takes versioned capsules since it has an exchange table (2.9).
TAKES_VERSIONED = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


# Why there is no linked road, for who asks.
without_companion = ""


def load_companion() -> Any:
    """The capsule of the companion extension for this release of torch, or None where there is none
    that fits."""
    global without_companion
    release = torch.__version__.partition("+")[0]
    name = re.sub(r"[^0-9A-Za-z]", "_", release)
    name = f"_torch_{name}_abi{int(torch.compiled_with_cxx11_abi())}"
    try:
        companion = importlib.import_module(f"dlbridge.{name}").companion
    except ModuleNotFoundError:
        without_companion = f"there is no companion for torch {release}"
    except ImportError as error:
        without_companion = f"the companion for torch {release} cannot be loaded: {error}"
    else:
        if agrees(companion):
            return companion
        without_companion = f"the companion for torch {release} misreads tensors of this build"
    return None


@unwatched()
def agrees(companion: Any) -> bool:
    """Whether the companion reads tensors of all kinds as this torch made them."""
    with torch._C.DisableTorchFunction():
        numbers = torch.arange(12.0, device="cpu").reshape(3, 4)
        complex_ones = torch.ones(2, dtype=torch.complex64, device="cpu")
        known = (
            numbers,
            numbers.T[1:, ::2],
            numbers[:0],
            numbers.to(torch.bfloat16),
            numbers[0, 0],
            torch.ones(2, requires_grad=True, device="cpu"),
            complex_ones.conj(),
            complex_ones.conj().imag,
        )
    try:
        return companion_agrees(companion, known)
    except RuntimeError:  # torch's own, of what it was asked for in a wrong way
        return False


@unwatched()
def prepare(x: torch.Tensor, densify: bool, to_host: bool) -> torch.Tensor:
    """A private tensor for what only torch can do: packed, without bits that are to be resolved."""
    prepared = x.detach()
    if densify:
        prepared = prepared.to_dense()
    if to_host:
        prepared = prepared.cpu()
    prepared = prepared.resolve_conj().resolve_neg().contiguous()
    made = (densify or to_host) and not torch._is_zerotensor(prepared)
    return prepared if made else prepared.clone()


def count_write(x: torch.Tensor) -> bool:
    """Lets autograd know of a write, if it counts those to this tensor."""
    if x.is_inference():
        return False
    torch.autograd.graph.increment_version(x)
    return True


def deliver(capsule: object, triple: tuple[int, int, int]) -> torch.Tensor:
    """The tensor of that type over a capsule's memory, which may call the type a number's."""
    delivered = torch.utils.dlpack.from_dlpack(capsule)
    dtype = dtype_of(triple)
    with WithoutTorchFunction():
        return delivered if delivered.dtype is dtype else delivered.view(dtype)
