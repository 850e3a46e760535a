"""to_numpy(out=, async_=) of memory on a device, without a GPU.

The device is the guarded one: its memory faults when the host touches it, and its work comes late.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from typing import Any

import dlbridge_guarded as guarded
import numpy as np
import pytest
from guarded_sources import (
    NAME,
    VALUES,
    Plain,
    each_producer,
    same,
    settle,
    while_held,
    without_waiting,
)

import dlbridge
from dlbridge.trees import converted

pytestmark = pytest.mark.usefixtures("guarded_device")


# --- out= ----------------------------------------------------------------------------------------


def test_out_is_filled_and_returned() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    out = np.zeros((3, 4), "f4")
    assert while_held(lambda: dlbridge.to_numpy(x, out=out), stream) is out
    same(out, VALUES)


def test_a_strided_out_keeps_what_lies_between() -> None:
    memory = np.zeros((3, 8), "f4")
    dlbridge.to_numpy(Plain(VALUES), out=memory[:, ::2])
    same(np.ascontiguousarray(memory[:, ::2]), VALUES)
    assert not memory[:, 1::2].any()


def test_a_pinned_out_is_written_by_the_device_itself() -> None:
    values = np.arange(100_000, dtype="f4")
    out = dlbridge.pinned_empty(values.shape, "float32", device=NAME)
    assert guarded.locate(out.ctypes.data) == (3, 0)
    asked = guarded.calls("allocate_host")
    dlbridge.to_numpy(Plain(values), out=out)
    same(out, values)
    assert guarded.calls("allocate_host") == asked
    del out
    gc.collect()


def test_out_with_a_cast() -> None:
    out = np.zeros((3, 4), "i2")
    dlbridge.to_numpy(Plain(VALUES), out=out, dtype="int16")
    same(out, VALUES.astype("i2"))


def test_an_out_that_does_not_fit_is_refused_and_left_alone() -> None:
    x = Plain(VALUES)
    read_only = np.zeros((3, 4), "f4")
    read_only.flags.writeable = False
    overlapping = np.lib.stride_tricks.as_strided(np.zeros(12, "f4"), (3, 4), (0, 4))
    touching = np.lib.stride_tricks.as_strided(np.zeros(12, "f4"), (3, 4), (4, 4))
    for out, error, text in (
        (np.zeros((4, 3), "f4"), ValueError, "shape"),
        (np.zeros((3, 4), "f8"), ValueError, "dtype"),
        (read_only, ValueError, "read-only"),
        (overlapping, ValueError, "share memory"),
        (touching, ValueError, "share memory"),
        ([0.0] * 12, TypeError, "numpy.ndarray"),
        (np.zeros((3, 4), ">f4"), ValueError, "byte order"),
    ):
        with pytest.raises(error, match=text):
            dlbridge.to_numpy(x, out=out)
        with pytest.raises(error, match=text):
            dlbridge.to_numpy(x, out=out, async_=True)
        assert not np.any(np.asarray(out))
    with pytest.raises(ValueError, match="copy"):
        dlbridge.to_numpy(x, out=np.zeros((3, 4), "f4"), copy=False)
    assert guarded.counts()["to_host"] == 0


# --- async_ --------------------------------------------------------------------------------------


@each_producer
def test_a_pending_array_is_awaited(make: Any) -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = make(VALUES, stream=stream, late=True)
    pending = without_waiting(lambda: dlbridge.to_numpy(x, async_=True), stream)
    assert not pending.done() and "on its way" in repr(pending)

    async def arrive() -> Any:
        asyncio.get_running_loop().call_later(0.05, guarded.let_go, stream)
        return await pending

    array = asyncio.run(arrive())
    same(array, VALUES)
    assert pending.done()
    assert asyncio.run(_again(pending)) is array  # as often as wanted
    assert pending.result() is array


async def _again(pending: Any) -> Any:
    return await pending


def test_one_that_is_dropped_unawaited_waits_for_nothing_and_frees_when_it_may() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    pending = without_waiting(lambda: dlbridge.to_numpy(x, async_=True), stream)
    assert x.deletes < x.exports

    def drop() -> None:
        nonlocal pending
        del pending

    without_waiting(drop, stream)
    assert x.deletes < x.exports  # the device may still read it
    guarded.let_go(stream)
    guarded.settle()
    settle()
    assert x.deletes == x.exports


def test_the_source_may_be_deleted_meanwhile() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream, late=True)
    pending = without_waiting(functools.partial(dlbridge.to_numpy, x, async_=True), stream)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None
    guarded.let_go(stream)
    same(pending.result(), VALUES)


def test_what_fails_under_way_is_raised_where_it_is_awaited() -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = Plain(VALUES, stream=stream)
    guarded.fail_work(stream)
    pending = without_waiting(lambda: dlbridge.to_numpy(x, async_=True), stream)
    guarded.let_go(stream)
    with pytest.raises(Exception, match="work failed"):
        asyncio.run(_again(pending))
    with pytest.raises(Exception, match="failed"):  # and says so again
        pending.result()
    del pending
    gc.collect()
    assert x.deletes == x.exports


def test_async_into_out() -> None:
    for out in (
        np.zeros((3, 4), "f4"),
        np.zeros((3, 8), "f4")[:, ::2],
        dlbridge.pinned_empty((3, 4), device=NAME),
    ):
        stream = guarded.make_stream()
        guarded.hold(stream)
        x = Plain(VALUES, stream=stream, late=True)
        pending = without_waiting(
            lambda x=x, out=out: dlbridge.to_numpy(x, out=out, async_=True), stream
        )
        guarded.let_go(stream)
        assert pending.result() is out
        same(np.ascontiguousarray(out), VALUES)
    del out, pending
    gc.collect()


def test_async_of_host_memory_is_there_at_once() -> None:
    pending = dlbridge.to_numpy(VALUES, async_=True)
    assert pending.done()
    assert pending.result() is VALUES


# --- arguments of a function ---------------------------------------------------------------------


@each_producer
def test_arguments_on_a_device_arrive_beside_others_in_their_order(make: Any) -> None:
    stream = guarded.make_stream()
    sources = [make(VALUES, stream=stream, late=True) for _ in range(2)]
    own = dlbridge.to_numpy(VALUES, async_=True)
    met: dict[int, Any] = {}

    def convert() -> Any:
        tree = {"x": [*sources, sources[0]], "host": VALUES, "own": own}
        return converted(tree, "numpy", met=met)

    found = while_held(convert, stream)
    assert [given for given, _ in met.values()] == [*sources, VALUES]
    for array in found["x"]:
        same(array, VALUES)
    assert found["x"][2] is found["x"][0] is met[id(sources[0])][1]
    assert found["host"] is VALUES and found["own"] is own
