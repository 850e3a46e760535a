"""A copy of 64 KiB or more never holds the GIL: another thread goes on while it is made."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dlbridge

SIZE = 1 << 22


class Ticker:
    """A thread that counts. Nobody is made to give the GIL up: it counts when somebody lets go."""

    def __init__(self) -> None:
        self.ticks = 0
        self.ends = False
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.ends:
            self.ticks += 1
            time.sleep(0.0001)  # so that three ticks are no moment between two other things

    def ticks_during(self, call: Callable[[], Any]) -> int:
        before = self.ticks
        call()
        return self.ticks - before


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    ticker = Ticker()
    ticker.thread.start()
    yield ticker
    ticker.ends = True
    ticker.thread.join()
    sys.setswitchinterval(interval)


def lets_go(ticker: Ticker, call: Callable[[], Any]) -> bool:
    """Of a busy machine the ticker may get no processor meanwhile, so it has many tries."""
    for _ in range(300):
        if ticker.ticks_during(call) >= 3:
            return True
        time.sleep(0.001)
    return False


FLOATS = torch.ones(SIZE)
ARRAY = FLOATS.numpy()
MANAGED = dlbridge.from_dlpack(ARRAY)
COMPLEX = torch.ones(SIZE // 2, dtype=torch.complex64)
OUT = np.empty(SIZE, "f4")
READONLY = np.ones(SIZE, "f4")
READONLY.flags.writeable = False
SWAPPED = ARRAY.astype(ARRAY.dtype.newbyteorder())
BFLOAT = ARRAY.astype(ml_dtypes.bfloat16)
BYTES = bytes(4 * SIZE)
WITH_DENSE = dlbridge.host.replace(layout="densify")
UPCAST = dlbridge.host.replace(dtype="upcast")

ROUTES: dict[str, Callable[[], Any]] = {
    "copy to NumPy": lambda: dlbridge.to_numpy(FLOATS, copy=True),
    "copy to torch": lambda: dlbridge.to_torch(ARRAY, copy=True),
    "repack": lambda: dlbridge.to_torch(ARRAY[::-1]),
    "transpose": lambda: dlbridge.to_numpy(FLOATS.reshape(2048, -1).T, copy=True),
    "expand": lambda: dlbridge.to_numpy(torch.ones(1).expand(SIZE), copy=True),
    "cast": lambda: dlbridge.to_numpy(FLOATS, dtype="float64"),
    "cast that is checked": lambda: dlbridge.to_torch(ARRAY, dtype="int8"),
    "byte order": lambda: dlbridge.to_torch(SWAPPED),
    "conj": lambda: dlbridge.to_numpy(COMPLEX.conj()),
    "neg": lambda: dlbridge.to_numpy(COMPLEX.conj().imag),
    "zero tensor": lambda: dlbridge.to_numpy(torch._efficientzerotensor(SIZE)),
    "densify": lambda: dlbridge.to_numpy(FLOATS.reshape(2048, -1).to_sparse(), policy=WITH_DENSE),
    "upcast": lambda: dlbridge.to_torch(BFLOAT, policy=UPCAST, dtype="float32"),
    "out": lambda: dlbridge.to_numpy(FLOATS, out=OUT),
    "async": lambda: dlbridge.to_numpy(FLOATS, copy=True, async_=True).result(),
    "tree": lambda: dlbridge.to_numpy({"a": [FLOATS]}, copy=True),
    "snapshot": lambda: dlbridge.to_torch(FLOATS, policy="snapshot"),
    "read-only": lambda: dlbridge.to_torch(READONLY),
    "buffer": lambda: dlbridge.to_numpy(BYTES, copy=True),
    "capsule": lambda: dlbridge.capsule(FLOATS, policy="snapshot"),
    "from a capsule": lambda: dlbridge.to_numpy(dlbridge.capsule(FLOATS), copy=True),
    "ManagedTensor": lambda: dlbridge.from_dlpack(ARRAY, copy=True),
    "__dlpack__": lambda: MANAGED.__dlpack__(copy=True),
    "__array__": lambda: MANAGED.__array__(copy=True),
    "__bytes__": lambda: bytes(MANAGED),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_large_copy_lets_other_threads_go_on(road: str, ticker: Ticker, route: str) -> None:
    assert lets_go(ticker, ROUTES[route])


LARGE = np.ones(1 << 24, "f4")
KEPT: dict[str, Callable[[], Any]] = {
    "array of a copy": lambda: dlbridge.to_numpy(LARGE, copy=True),
    "tensor of a copy": lambda: dlbridge.to_torch(LARGE, copy=True),
    "ManagedTensor of a copy": lambda: dlbridge.from_dlpack(LARGE, copy=True),
    "capsule of a copy": lambda: dlbridge.capsule(LARGE, policy="snapshot"),
    "array of a tensor": lambda: dlbridge.to_numpy(torch.ones(1 << 24)),
    "ManagedTensor of a tensor": lambda: dlbridge.from_dlpack(torch.ones(1 << 24)),
    "capsule of a tensor": lambda: dlbridge.capsule(torch.ones(1 << 24)),
    "array of a tensor's first element": lambda: dlbridge.to_numpy(torch.ones(1 << 24)[:1]),
    "ManagedTensor of a tensor's": lambda: dlbridge.from_dlpack(torch.ones(1 << 24)[:1]),
    "capsule of a tensor's": lambda: dlbridge.capsule(torch.ones(1 << 24)[:1]),
    "legacy capsule": lambda: dlbridge.from_dlpack(LARGE).__dlpack__(max_version=None, copy=True),
}


@pytest.mark.parametrize("kind", KEPT)
def test_large_memory_is_given_back_while_other_threads_go_on(
    road: str, ticker: Ticker, kind: str
) -> None:
    if road == "portable" and "of a tensor" in kind:
        pytest.skip("the memory belongs to an object of torch's, which ends it with the GIL")
    # What is freed by one call to the system is gone before the ticker has woken up, mostly.
    for _ in range(300):
        kept = [KEPT[kind]()]
        if ticker.ticks_during(kept.clear) > 0:
            return
    pytest.fail("nobody else got the GIL")


def test_what_a_large_view_keeps_is_gone_with_it(road: str) -> None:
    class Kept(np.ndarray):
        pass

    kept = ARRAY.view(Kept)
    gone = weakref.ref(kept)
    managed = dlbridge.from_dlpack(kept)
    del kept
    assert gone() is not None
    del managed
    assert gone() is None


def test_a_cast_lets_go_by_what_it_reads(ticker: Ticker) -> None:
    doubles = np.ones(60_000)  # 480 KB, of which 60 KB are made
    assert lets_go(ticker, lambda: [dlbridge.to_numpy(doubles, dtype="int8") for _ in range(50)])


def test_nothing_else_lets_the_ticker_go_on(ticker: Ticker) -> None:
    view = memoryview(MANAGED)
    assert all(ticker.ticks_during(view.tobytes) == 0 for _ in range(3))
    piece = FLOATS[:1]
    dlbridge.to_numpy(piece)  # the first of all may have to import
    assert all(ticker.ticks_during(lambda: dlbridge.to_numpy(piece)) == 0 for _ in range(3))
    small = np.ones(1000)
    for _ in range(3):
        assert ticker.ticks_during(lambda: dlbridge.to_numpy(small, dtype="int8")) == 0


@pytest.mark.parametrize("shape", [(SIZE,), (2048, SIZE // 2048), (0,), (3,), ()])
@pytest.mark.parametrize("order", ["C", "F"])
def test_bytes_of_a_managed_tensor_are_those_of_the_array(
    shape: tuple[int, ...], order: Any
) -> None:
    array = np.arange(int(np.prod(shape)), dtype="i4").reshape(shape).copy(order)
    assert bytes(dlbridge.from_dlpack(array)) == array.tobytes()
    assert (
        bytes(dlbridge.from_dlpack(array[::-1] if shape else array))
        == (array[::-1] if shape else array).tobytes()
    )


def test_bytes_of_what_has_no_letter_in_the_buffer_protocol_are_refused() -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        bytes(dlbridge.from_dlpack(BFLOAT))
