"""Streams: nothing is read before it is written, nor given back before it has been read."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from gpu_support import Delay

import dlbridge

pytestmark = pytest.mark.usefixtures("road")
cupy = pytest.importorskip("cupy")


@pytest.mark.parametrize("size", [100, 3 * 2**20])
@pytest.mark.parametrize("strided", [False, True])
def test_a_late_kernel_on_another_stream_is_waited_for(
    delay: Delay, size: int, strided: bool
) -> None:
    x = torch.zeros(size, 2, device="cuda")
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        delay()
        x += 1
        array = dlbridge.to_numpy(x[:, 0] if strided else x)
    assert bool((array == 1).all())


def test_a_stream_that_is_named_is_waited_for(delay: Delay) -> None:
    for name in ("object", "handle"):
        x = torch.zeros(1000, device="cuda")
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            delay()
            x += 1
        named = stream if name == "object" else stream.cuda_stream
        assert bool((dlbridge.to_numpy(x, stream=named) == 1).all())


def test_a_managed_tensor_remembers_what_has_to_come_first(delay: Delay) -> None:
    x = torch.zeros(1000, device="cuda")
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        delay()
        x += 1
        managed = dlbridge.from_dlpack(x)
    assert bool((dlbridge.to_numpy(managed) == 1).all())


def test_cupy_is_waited_for_and_waits(delay: Delay) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        a = cupy.zeros(100_000, cupy.float32)
        stream.synchronize()
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
            delay()
        a += 1
        assert bool((dlbridge.to_numpy(a) == 1).all())
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
            delay()
        a += 1
        reader = torch.cuda.Stream()
        with torch.cuda.stream(reader):
            total = dlbridge.to_torch(a).sum()
            assert total.item() == 200_000
    x = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        delay()
        x += 3
        b = dlbridge.to(x, "cupy")
    assert b.data.ptr == x.data_ptr()
    assert float(b.sum()) == 3000


def test_memory_is_not_reused_while_a_foreign_stream_reads_it(delay: Delay) -> None:
    writer = torch.cuda.Stream()
    reader = cupy.cuda.Stream(non_blocking=True)
    cupy.ones(1 << 20, cupy.float32).sum()  # compiled before it has to be quick
    with torch.cuda.stream(writer):
        # Memory that torch has already: asking the driver for it could wait for the device.
        spare = [torch.empty(1 << 20, device="cuda") for _ in range(6)]
        del spare
        x = torch.full((1 << 20,), 7.0, device="cuda")
        address = x.data_ptr()
        with reader:
            view = cupy.from_dlpack(dlbridge.from_dlpack(x))
            with torch.cuda.stream(torch.cuda.ExternalStream(reader.ptr)):
                for _ in range(5):
                    delay()
            total = view.sum()  # only begun
            del view
        del x
        others = [torch.empty(1 << 20, device="cuda") for _ in range(4)]  # would take that memory
        for other in others:
            other.fill_(-1)
        assert not reader.done, "the test was too slow to say anything"
        assert address not in [other.data_ptr() for other in others]
    reader.synchronize()
    assert float(total) == 7.0 * (1 << 20)


def test_pinned_memory_is_seen_after_what_writes_to_it(delay: Delay) -> None:
    x = torch.full((1 << 20,), 5.0, device="cuda")
    torch.cuda.synchronize()
    delay()
    late = x.to("cpu", non_blocking=True)
    assert late.is_pinned()
    array = dlbridge.to_numpy(late)
    assert array.ctypes.data == late.data_ptr()
    assert bool((array == 5).all())
    plan = dlbridge.explain(late, "numpy")
    assert plan.view and plan.steps == ()
    assert plan.notes == ("it is read where it lies, after a wait for the device's work on it",)


def test_managed_memory_is_viewed_after_a_wait(delay: Delay) -> None:
    memory = cupy.cuda.malloc_managed(4096)
    a = cupy.ndarray((1024,), cupy.float32, memory)
    a.fill(0)
    cupy.cuda.Device().synchronize()
    delay()
    torch.cuda.current_stream()
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream or 1):
        a += 2
    array = dlbridge.to_numpy(a)
    assert bool((array == 2).all())


def test_async_goes_on_while_the_host_works(delay: Delay) -> None:
    x = torch.zeros(1 << 20, device="cuda")
    torch.cuda.synchronize()
    delay()
    x += 1
    pending = dlbridge.to_numpy(x, async_=True)
    assert not pending.done()
    x.add_(1)  # on its stream this comes after the copy
    array = pending.result()
    assert pending.done() and pending.result() is array
    assert bool((array == 1).all())


def test_async_may_be_dropped_or_outlive_its_source(delay: Delay) -> None:
    x = torch.full((1 << 20,), 3.0, device="cuda")
    delay()
    dlbridge.to_numpy(x, async_=True)
    delay()
    pending = dlbridge.to_numpy(x, async_=True)
    del x
    y = torch.full((1 << 20,), 9.0, device="cuda")
    assert bool((pending.result() == 3).all()) and y[0].item() == 9

    async def fetch() -> np.ndarray:
        return await dlbridge.to_numpy(y, async_=True, out=dlbridge.pinned_empty(1 << 20))

    assert bool((asyncio.run(fetch()) == 9).all())


def test_a_capture_is_refused_clearly_and_goes_on() -> None:
    x = torch.ones(1000, device="cuda")
    y = torch.zeros(1000, device="cuda")
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    dlbridge.to_numpy(x)
    with torch.cuda.graph(graph):
        for call in (
            lambda: dlbridge.to_numpy(x),
            lambda: dlbridge.to_numpy(x, async_=True),
            lambda: dlbridge.to_torch(np.ones(3), device="cuda"),
        ):
            with pytest.raises(dlbridge.ConversionRefused, match="captured into a graph"):
                call()
        view = dlbridge.to_torch(dlbridge.from_dlpack(x))  # views have nothing to wait for
        y.copy_(view * 2)
        del view
    graph.replay()
    assert bool((dlbridge.to_numpy(y) == 2).all())
    x.fill_(5)
    graph.replay()
    assert bool((dlbridge.to_numpy(y) == 10).all())
