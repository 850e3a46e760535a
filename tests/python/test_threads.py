"""Many threads at once, from the very first crossing on."""

from __future__ import annotations

import pytest
from dlb_support import run_child

SIXTEEN_THREADS = """
import gc, sys, threading
import numpy as np, torch, dlbridge
try:
    dlbridge._core.torch_road({road!r})
except RuntimeError:
    print("skipped"); sys.exit()
a, t, errors = np.arange(1000.0), torch.arange(1000.0), []
before = sys.getrefcount(a)

def cross():
    try:
        for _ in range(500):
            over_array, over_tensor = dlbridge.to_torch(a), dlbridge.to_numpy(t)
            assert dlbridge.to_numpy(over_array)[5] == 5
            assert dlbridge.from_dlpack(over_tensor).shape == (1000,)
            assert dlbridge.to_numpy(torch.ones(2).bfloat16()).dtype.name == "bfloat16"
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=cross) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
del thread, threads
gc.collect()
assert not errors, errors
assert dlbridge._core.live_managed_tensors() == 0
assert sys.getrefcount(a) == before
print("crossed")
"""


@pytest.mark.parametrize("road", ["linked", "portable"])
def test_sixteen_threads_cross_the_same_sources(road: str) -> None:
    out = run_child(SIXTEEN_THREADS.format(road=road)).split()
    if out == ["skipped"]:
        pytest.skip("there is no companion extension")
    assert out == ["crossed"]
