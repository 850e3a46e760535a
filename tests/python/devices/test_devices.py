"""Producers on a device that is not the host, through the whole Python way, without a GPU.

The device is the guarded one: its memory faults when the host touches it, and its work comes late.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import dlbridge_guarded as guarded
import dlbridge_probe as probe
import numpy as np
import pytest
from dlb_support import run_child
from guarded_sources import (
    CHUNK,
    NAME,
    TYPE,
    VALUES,
    ByTable,
    CopiesToHost,
    Plain,
    by_table,
    each_producer,
    may_lose,
    same,
    settle,
    while_held,
    without_waiting,
)

import dlbridge

pytestmark = pytest.mark.usefixtures("guarded_device")


# --- the row "on a device, target on the host" ---------------------------------------------------


@pytest.mark.parametrize("policy", ["host", "snapshot"])
@each_producer
def test_where_copies_are_allowed_it_is_copied_by_the_runtime(make: Any, policy: str) -> None:
    x = make(VALUES)
    plan = dlbridge.explain(x, "numpy", policy=policy)
    assert plan.steps[0] == "copy to host" and not plan.view and plan.writable
    assert plan.bytes_copied == VALUES.nbytes
    assert any("dlbridge copies it by guarded" in note for note in plan.notes)
    guarded.begin_count()
    array = dlbridge.to_numpy(x, policy=policy)
    same(array, VALUES)
    assert array.flags.writeable and array.flags.c_contiguous
    counts = guarded.counts()
    assert (counts["to_host"], counts["kernels"]) == (VALUES.nbytes, 0)


@pytest.mark.parametrize("policy", ["strict", "zero_copy"])
@each_producer
def test_where_copies_are_forbidden_it_is_refused(make: Any, policy: str) -> None:
    x = make(VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match=NAME) as refused:
        dlbridge.to_numpy(x, policy=policy)
    assert refused.value.fix
    assert guarded.counts()["to_host"] == 0
    assert dlbridge.explain(x, "numpy", policy=policy).refused


def test_the_policys_field_forbids_it_by_itself() -> None:
    x = Plain(VALUES)
    for how in ({"policy": dlbridge.host.replace(device="refuse")}, {"copy": False}):
        with pytest.raises(dlbridge.ConversionRefused, match=NAME):
            dlbridge.to_numpy(x, **how)
    del x
    gc.collect()


# --- the ladder ----------------------------------------------------------------------------------


def without_runtime() -> None:
    dlbridge._core.register_device_runtime(TYPE, None)


def test_stats_tell_the_runtimes() -> None:
    assert dlbridge.stats().runtimes["ext_dev"] == "2 devices"
    without_runtime()
    assert "ext_dev" not in dlbridge.stats().runtimes


def test_without_a_runtime_the_producer_is_asked() -> None:
    without_runtime()
    x = CopiesToHost(VALUES)
    plan = dlbridge.explain(x, "numpy")
    assert any("its own library is asked" in note for note in plan.notes)
    same(dlbridge.to_numpy(x), VALUES)
    assert x.asked >= 1
    assert guarded.counts()["to_host"] == 0


def test_with_a_runtime_the_producer_is_not_asked() -> None:
    x = CopiesToHost(VALUES)
    same(dlbridge.to_numpy(x), VALUES)
    assert x.asked == 0


def test_a_producer_that_does_not_copy_is_refused_with_what_was_tried() -> None:
    without_runtime()
    x = Plain(VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match="does not copy to the host") as refused:
        dlbridge.to_numpy(x)
    assert NAME in str(refused.value)
    del refused
    assert x.deletes == x.exports


def test_a_raw_capsule_without_a_runtime_is_refused_with_what_was_tried() -> None:
    without_runtime()
    x = Plain(VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match="no runtime for ext_dev"):
        dlbridge.to_numpy(x.tensor.capsule())
    assert x.deletes == x.exports


@pytest.mark.parametrize("kind", ["pinned", "managed"])
def test_memory_that_the_host_reaches_is_viewed_after_a_wait(kind: str) -> None:
    device_type = 3 if kind == "pinned" else 13
    dlbridge._core.register_device_runtime(device_type, guarded.runtime_capsule())
    try:
        memory = guarded.SharedMemory(np.full_like(VALUES, 77).tobytes(), kind)
        tensor = guarded.TableTensor(memory, [3, 4], place=(device_type, 0))
        guarded.hold()
        memory.store_later(VALUES.tobytes())
        plan = dlbridge.explain(tensor, "numpy")
        assert plan.view and any("after a wait" in note for note in plan.notes)
        array = while_held(functools.partial(dlbridge.to_numpy, tensor))
        same(array, VALUES)
        assert array.__array_interface__["data"][0] == memory.address
        assert guarded.counts()["to_host"] == 0
        del array, tensor, memory
        gc.collect()
    finally:
        dlbridge._core.register_device_runtime(device_type, None)


def test_such_memory_is_waited_for_before_out_is_filled() -> None:
    dlbridge._core.register_device_runtime(3, guarded.runtime_capsule())
    try:
        memory = guarded.SharedMemory(np.full_like(VALUES, 77).tobytes(), "pinned")
        tensor = guarded.TableTensor(memory, [3, 4], place=(3, 0))
        guarded.hold()
        memory.store_later(VALUES.tobytes())
        out = np.zeros_like(VALUES)
        same(while_held(functools.partial(dlbridge.to_numpy, tensor, out=out)), VALUES)
        assert out.tolist() == VALUES.tolist()
        del tensor, memory
        gc.collect()
    finally:
        dlbridge._core.register_device_runtime(3, None)


# --- order ---------------------------------------------------------------------------------------


def test_a_dlpack_producer_is_told_a_stream_and_waited_for() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    same(while_held(lambda: dlbridge.to_numpy(x), stream), VALUES)
    (call,) = x.calls
    assert call["stream"] not in (None, -1, 0)


def test_a_table_producers_current_stream_is_waited_for() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = by_table(VALUES, stream=stream, late=True)
    same(while_held(lambda: dlbridge.to_numpy(x), stream), VALUES)


@pytest.mark.parametrize(
    "cross", [dlbridge.to_numpy, lambda x, **how: dlbridge.to(x, "numpy", **how)]
)
def test_the_callers_stream_is_told_to_the_producer_and_waited_for(cross: Any) -> None:
    stream = guarded.make_stream()
    reader = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    same(while_held(lambda: cross(x, stream=reader), stream), VALUES)
    assert [call["stream"] for call in x.calls] == [reader]


def test_the_callers_stream_stands_over_the_tables() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = by_table(VALUES, stream=stream, late=True)
    guarded.set_current_stream(0)  # as a library would that knows nothing of that stream
    same(while_held(lambda: dlbridge.to_numpy(x, stream=stream), stream), VALUES)


def test_other_streams_are_not_waited_for() -> None:
    x = Plain(VALUES, stream=guarded.make_stream())
    other = guarded.make_stream()
    guarded.hold(0)
    same(without_waiting(lambda: dlbridge.to_numpy(x), other), VALUES)


def test_a_stream_of_another_device_is_an_error() -> None:
    x = Plain(VALUES)
    with pytest.raises(Exception, match="a stream of device 1 used on device 0"):
        dlbridge.to_numpy(x, stream=guarded.make_stream(1))
    assert x.deletes == x.exports
    same(dlbridge.to_numpy(x), VALUES)


def test_what_is_no_stream_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="stream must be"):
        dlbridge.to_numpy(Plain(VALUES), stream="fast")


@each_producer
def test_work_that_failed_is_told(make: Any) -> None:
    x = make(VALUES)
    may_lose(1)
    guarded.fail_work()
    with pytest.raises(Exception, match="work failed"):
        dlbridge.to_numpy(x)
    guarded.settle()
    same(dlbridge.to_numpy(x), VALUES)


# --- what crosses --------------------------------------------------------------------------------

LAYOUTS = {
    "transposed": ((4, 3), (1, 4), 0, VALUES.T),
    "every other column": ((3, 2), (4, 2), 0, VALUES[:, ::2]),
    "without the first row": ((2, 4), (4, 1), 16, VALUES[1:]),
    "expanded": ((2, 4), (0, 1), 0, np.broadcast_to(VALUES[0], (2, 4))),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_only_the_targets_bytes_cross(name: str) -> None:
    shape, strides, offset, expected = LAYOUTS[name]
    x = Plain(VALUES, shape=shape, strides=strides, byte_offset=offset)
    array = dlbridge.to_numpy(x)
    same(array, np.ascontiguousarray(expected))
    assert guarded.counts()["to_host"] == expected.size * 4


def test_a_cast_that_cannot_fail_is_done_on_the_device() -> None:
    array = dlbridge.to_numpy(Plain(VALUES), dtype="float64")
    same(array, VALUES.astype("f8"))
    counts = guarded.counts()
    assert (counts["to_host"], counts["kernels"]) == (96, 1)


def test_a_cast_that_has_to_be_checked_is_done_by_the_host() -> None:
    array = dlbridge.to_numpy(Plain(VALUES), dtype="int8")
    same(array, VALUES.astype("i1"))
    counts = guarded.counts()
    assert (counts["to_host"], counts["kernels"]) == (48, 0)


@pytest.mark.parametrize("async_", [False, True])
def test_what_comes_from_a_device_is_checked(async_: bool) -> None:
    wrong = np.array([[1, 2], [300, 4]])
    with pytest.raises(dlbridge.ConversionRefused, match=r"x\[1, 0\] is 300"):
        dlbridge.to_numpy(Plain(wrong), dtype="uint8", async_=async_)
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        dlbridge.to_numpy(Plain(np.array([np.nan])), dtype="int32", async_=async_)
    fits = dlbridge.to_numpy(Plain(wrong), dtype="int16", async_=async_)
    same(fits.result() if async_ else fits, wrong.astype("i2"))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_every_size_around_the_staging_buffers(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 255, size, "u1")
    guarded.delay(size, 2000)
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(values, stream=stream, late=size != 0)
    guarded.let_go(stream)
    same(dlbridge.to_numpy(x), values)
    assert guarded.counts()["pageable_copies"] == 0


def test_the_pointers_own_device_counts() -> None:
    memory = guarded.DeviceMemory(VALUES.tobytes(), 1)
    x = ByTable(memory, [3, 4], place=(TYPE, 0))
    del memory
    same(dlbridge.to_numpy(x), VALUES)
    assert dlbridge.from_dlpack(x).device == (TYPE, 1)


def test_an_order_on_the_device_that_was_named_counts_on_the_pointers_own() -> None:
    x = Plain(VALUES)
    x.memory = guarded.DeviceMemory(VALUES.tobytes(), 1)
    x.tensor = guarded.Tensor(x.memory, [3, 4], place=(TYPE, 0))
    same(dlbridge.to_numpy(x), VALUES)
    # The stream that the producer was told of, on the device that it named, is waited for.
    same(while_held(lambda: dlbridge.to_numpy(x), x.calls[-1]["stream"]), VALUES)
    assert dlbridge.from_dlpack(x).device == (TYPE, 1)


def test_a_pointer_that_belongs_to_no_device_is_refused() -> None:
    x = Plain(VALUES)
    x.tensor = guarded.Tensor(VALUES.ctypes.data, [3, 4], place=(TYPE, 0))
    with pytest.raises(dlbridge.ConversionRefused, match="knows of no memory at its address"):
        dlbridge.to_numpy(x)
    assert x.deletes == x.exports


# --- managed tensors -----------------------------------------------------------------------------


def test_a_managed_tensor_stays_on_the_device() -> None:
    x = Plain(VALUES)
    managed = dlbridge.from_dlpack(x)
    assert managed.device == (TYPE, 0)
    assert guarded.counts()["to_host"] == 0
    same(dlbridge.to_numpy(managed), VALUES)


def test_a_copy_on_the_device_never_crosses() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    managed = without_waiting(lambda: dlbridge.from_dlpack(x, copy=True), stream)
    assert managed.data_ptr != x.memory.address
    counts = guarded.counts()
    assert (counts["to_host"], counts["to_device"]) == (0, 0)
    guarded.let_go(stream)
    same(dlbridge.to_numpy(managed), VALUES)


def assert_given_back_by(stream: int, tensor: Any) -> None:
    """When what is held back on the stream is done, and not before."""
    settle()
    assert tensor.deletes < tensor.exports
    guarded.let_go(stream)
    guarded.settle()
    settle()
    assert tensor.deletes == tensor.exports


@pytest.mark.parametrize("given", [lambda x: x, dlbridge.from_dlpack, dlbridge.capsule])
def test_what_is_copied_on_the_device_ends_after_its_copy(given: Callable[[Any], Any]) -> None:
    own = guarded.own_stream()
    x = Plain(VALUES)
    tensor = x.tensor
    source = given(x)
    guarded.hold(own)
    copied = dlbridge.from_dlpack(source, copy=True)
    del x, source
    assert_given_back_by(own, tensor)
    same(dlbridge.to_numpy(copied), VALUES)


def test_from_the_host_to_the_device() -> None:
    managed = dlbridge.from_dlpack(VALUES.copy(), device=f"{NAME}:1")
    assert managed.device == (TYPE, 1)
    assert guarded.locate(managed.data_ptr) == (TYPE, 1)
    same(dlbridge.to_numpy(managed), VALUES)


def read_on(stream: int, address: int) -> guarded.DeviceMemory:
    """What a consumer reads at that address when `stream` comes to it."""
    read = guarded.DeviceMemory(bytes(VALUES.nbytes))
    read.copy_later(address, stream)
    return read


def test_whoever_takes_a_managed_tensor_waits_for_its_memory() -> None:
    own, stream = guarded.own_stream(), guarded.make_stream()
    guarded.hold(own)
    managed = dlbridge.from_dlpack(VALUES.copy(), device=NAME)
    capsule = managed.__dlpack__(stream=stream, max_version=(1, 3))
    read = read_on(stream, managed.data_ptr)
    guarded.let_go(own)
    guarded.settle()
    assert read.load() == VALUES.tobytes()
    del capsule


def test_its_exchange_table_names_the_stream_of_its_memory() -> None:
    table = probe.Table(dlbridge.ManagedTensor.__dlpack_c_exchange_api__)
    assert table.current_work_stream(TYPE, 1)["stream"] == guarded.own_stream(1)


@pytest.mark.parametrize("make", [Plain, by_table])
def test_a_managed_view_is_ordered_after_its_producer(make: Any) -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = make(VALUES, stream=stream, late=True)
    managed = without_waiting(lambda: dlbridge.from_dlpack(x), stream)
    read = read_on(guarded.own_stream(), managed.data_ptr)
    guarded.let_go(stream)
    guarded.settle()
    assert read.load() == VALUES.tobytes()


def test_memory_is_not_given_back_before_its_taker_is_done() -> None:
    stream = guarded.make_stream()
    x = Plain(VALUES, stream=guarded.make_stream())
    managed = dlbridge.from_dlpack(x)
    address = managed.data_ptr
    capsule = managed.__dlpack__(stream=stream, max_version=(1, 3))
    del managed
    guarded.hold(stream)
    read = read_on(stream, address)
    del capsule
    assert_given_back_by(stream, x)
    assert read.load() == VALUES.tobytes()


def test_a_capsule_is_ordered_on_the_default_stream() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = by_table(VALUES, stream=stream, late=True)
    capsule = without_waiting(lambda: dlbridge.capsule(x), stream)
    read = read_on(0, probe.fields(capsule)["data"])
    guarded.let_go(stream)
    guarded.settle()
    assert read.load() == VALUES.tobytes()


# --- bad ends ------------------------------------------------------------------------------------


def test_a_capture_in_progress_is_refused_and_not_broken() -> None:
    stream = guarded.make_stream()
    x = by_table(VALUES, stream=stream)
    guarded.begin_capture(stream)
    with pytest.raises(dlbridge.ConversionRefused, match="captured into a graph"):
        dlbridge.to_numpy(x)
    with pytest.raises(dlbridge.ConversionRefused, match="captured into a graph"):
        dlbridge.to_numpy(x, async_=True)
    assert guarded.end_capture(stream)
    same(dlbridge.to_numpy(x), VALUES)


def test_a_device_that_is_gone_is_an_error_and_comes_back() -> None:
    x = by_table(VALUES)
    guarded.unplug()
    with pytest.raises(Exception, match="the device is gone"):
        dlbridge.to_numpy(x)
    guarded.unplug(False)
    assert x.deletes == x.exports
    same(dlbridge.to_numpy(x), VALUES)


WAYS = {
    "to_numpy": lambda: dlbridge.to_numpy(by_table(VALUES, stream=guarded.make_stream())),
    "chunks": lambda: dlbridge.to_numpy(by_table(np.zeros(3 * CHUNK, "u1"))),
    "strided": lambda: dlbridge.to_numpy(
        guarded.TableTensor(guarded.DeviceMemory(bytes(96)), [4], strides=[3])
    ),
    "async": lambda: dlbridge.to_numpy(by_table(VALUES), async_=True).result(),
    "out": lambda: dlbridge.to_numpy(by_table(VALUES), out=np.empty_like(VALUES)),
    "managed": lambda: dlbridge.from_dlpack(by_table(VALUES)),
    "managed copy": lambda: dlbridge.from_dlpack(by_table(VALUES), copy=True),
    "to the device": lambda: dlbridge.from_dlpack(VALUES.copy(), device=NAME),
}


@pytest.mark.parametrize("out_of_memory", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_call_may_fail(way: str, out_of_memory: bool) -> None:
    error: Any = MemoryError if out_of_memory else Exception
    for nth in range(1, 100):
        dlbridge._core.release_pinned_memory()
        before = guarded.counts()
        guarded.fail(nth=nth, out_of_memory=out_of_memory)
        raised = None
        try:
            WAYS[way]()
        except error as failed:
            raised = type(failed)
        failed_then = guarded.has_failed()
        guarded.settle()
        gc.collect()
        guarded.settle()
        dlbridge._core.release_pinned_memory()
        after = guarded.counts()
        for name in ("allocations", "pinned", "events"):
            assert after[name] == before[name], f"call {nth}: {name}"
        assert guarded.faults() == [], f"call {nth}"
        same(dlbridge.to_numpy(by_table(VALUES)), VALUES)
        if not failed_then:
            assert nth > 1, "it asked nothing of the device"
            return
        assert raised is not None or "managed" in way, f"call {nth} failed unseen"
    raise AssertionError("it never ended")


def test_a_forked_process_is_refused_the_device_and_keeps_the_host() -> None:
    run_child(
        """
import os, sys
import numpy as np
from guarded_sources import Plain, registered
import dlbridge
with registered():
    x = Plain(np.arange(4, dtype="f4"))
    dlbridge.to_numpy(x)
    child = os.fork()
    if child == 0:
        try:
            dlbridge.to_numpy(x)
            os._exit(1)
        except Exception as error:
            if "forked" not in str(error):
                print(error, flush=True)
                os._exit(2)
        ok = dlbridge.to_numpy(np.arange(3)).sum() == 3
        os._exit(0 if ok else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    dlbridge.to_numpy(x)
    del x
"""
    )
