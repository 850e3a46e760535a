"""Many threads at once, each on a stream of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import dlbridge

pytestmark = pytest.mark.usefixtures("road")


def there_and_back(seed: int) -> bool:
    random = np.random.default_rng(seed)
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(15):
            shape = tuple(random.integers(1, 1500, 2))
            array = random.random(shape, np.float32)
            there = dlbridge.to_torch(array, device="cuda")
            doubled = (there * 2).T
            if not np.array_equal(dlbridge.to_numpy(doubled), array.T * 2):
                return False
            pending = dlbridge.to_numpy(there + 1, async_=True)
            managed = dlbridge.from_dlpack(doubled)
            del there, doubled
            if not np.array_equal(dlbridge.to_numpy(managed), array.T * 2):
                return False
            if not np.array_equal(pending.result(), array + 1):
                return False
    return True


def test_sixteen_threads() -> None:
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(there_and_back, range(32)))
