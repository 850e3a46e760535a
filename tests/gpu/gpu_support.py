"""What the tests on a GPU share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

# Puts work on torch's current stream that takes some 50 ms.
Delay = Callable[[], None]


def same(array: np.ndarray, tensor: torch.Tensor) -> bool:
    """Whether the array holds what torch itself brings to the host."""
    wanted = tensor.detach().resolve_conj().resolve_neg().cpu()
    if wanted.dtype is torch.bfloat16:
        return bool(np.array_equal(array.view(np.uint16), wanted.view(torch.uint16).numpy()))
    return array.shape == tuple(wanted.shape) and bool(np.array_equal(array, wanted.numpy()))
