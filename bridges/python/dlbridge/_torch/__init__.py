"""What the module asks of torch in Python, by the names that are listed here.

Imported when the first tensor comes by; torch is there by then, or is asked for by to_torch().
The room is not called ``torch``: ``dlbridge.torch`` would be taken for torch itself.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import torch

from dlbridge._torch.devices import (  # noqa: F401
    CUDA_NAMES,
    DTYPES,
    current_stream,
    empty,
    has_device,
    to_device,
)
from dlbridge._torch.storages import guard  # noqa: F401
from dlbridge._torch.tensors import Tools, describe, unwatched  # noqa: F401

# Where it is entered, a subclass is asked without its own __torch_function__.
WithoutTorchFunction = torch._C.DisableTorchFunctionSubclass

# torch's importer takes versioned capsules since it has an exchange table (2.9).
TAKES_VERSIONED = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


def load_companion() -> Any:
    """The capsule of the companion extension built for exactly this torch, or None."""
    name = "_torch_" + re.sub(r"[^0-9A-Za-z]", "_", torch.__version__)
    try:
        return importlib.import_module(f"dlbridge.{name}").companion
    except ModuleNotFoundError:
        return None


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


def deliver(capsule: object) -> torch.Tensor:
    """The tensor over a capsule's memory."""
    return torch.utils.dlpack.from_dlpack(capsule)
