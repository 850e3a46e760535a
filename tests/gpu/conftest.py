"""Tests on a GPU: `make test-gpu`. Without one, every test here is skipped, and says why."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import dlbridge

if not torch.cuda.is_available():
    pytest.skip("torch finds no CUDA device", allow_module_level=True)


@pytest.fixture(params=["linked", "portable"])
def road(request: pytest.FixtureRequest) -> Iterator[str]:
    """The road to torch that the test runs on."""
    before = dlbridge._core.torch_road()
    try:
        dlbridge._core.torch_road(request.param)
    except RuntimeError as error:
        pytest.skip(f"no {request.param} road: {error}")
    yield request.param
    dlbridge._core.torch_road(before)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every managed tensor that a test makes ends, and the device still works after it."""
    gc.collect()
    before = dlbridge._core.live_managed_tensors()
    yield
    torch.cuda.synchronize()
    for _ in range(100):
        gc.collect()
        if dlbridge._core.live_managed_tensors() <= before:
            break
        torch.cuda.synchronize()
    assert dlbridge._core.live_managed_tensors() == before
    assert torch.ones(3, device="cuda").sum().item() == 3


Delay = Callable[[], None]


@pytest.fixture(scope="session")
def delay() -> Delay:
    """Work on the current stream that takes some 50 ms: whoever does not wait reads too early."""
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    return lambda: torch.cuda._sleep(100_000_000)


def same(array: np.ndarray, tensor: torch.Tensor) -> bool:
    """Whether the array holds what torch itself brings to the host."""
    wanted = tensor.detach().resolve_conj().resolve_neg().cpu()
    if wanted.dtype is torch.bfloat16:
        return bool(np.array_equal(array.view(np.uint16), wanted.view(torch.uint16).numpy()))
    return array.shape == tuple(wanted.shape) and bool(np.array_equal(array, wanted.numpy()))
