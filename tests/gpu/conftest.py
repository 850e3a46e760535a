"""Tests on a GPU: `make test-gpu`. Without one, every test here is skipped, and says why."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from gpu_support import Delay

import dlbridge


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))


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


@pytest.fixture(scope="session")
def delay() -> Delay:
    """Work on the current stream that takes some 50 ms: whoever does not wait reads too early."""
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    return lambda: torch.cuda._sleep(100_000_000)
