"""Arrow's C interface as a source, by columns that are made by hand."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arrow_sources import Chunked, Column, Located, Whole

import dlbridge

VALUES = np.arange(5, dtype="f8")


@pytest.mark.parametrize("kind", [Whole, Chunked, Located])
def test_a_column_is_a_read_only_view(kind: type[Column]) -> None:
    x = kind(b"g", VALUES)
    view = dlbridge.to_numpy(x, copy=False)
    assert view.ctypes.data == VALUES.ctypes.data and view.tolist() == VALUES.tolist()
    assert not view.flags.writeable
    assert "array" not in x.released and x.released.count("schema") == 1
    del view
    gc.collect()
    assert x.released.count("array") == 1


def test_the_view_may_end_on_any_thread() -> None:
    x = Whole(b"g", VALUES)
    views = [dlbridge.from_dlpack(x)]
    ender = threading.Thread(target=views.clear)
    ender.start()
    ender.join()
    dlbridge.to_numpy(VALUES)  # carries out what was left behind, if anything was
    assert x.released.count("array") == 1


def test_chunks_are_one_copy_and_no_view() -> None:
    x = Chunked(b"g", VALUES, VALUES[:0], VALUES[2:])
    made = dlbridge.to_numpy(x)
    assert made.tolist() == [0, 1, 2, 3, 4, 2, 3, 4] and made.flags.writeable
    assert x.released.count("array") == 3 and x.released.count("stream") == 1
    plan = dlbridge.explain(x, "numpy")
    assert plan.steps == ("gather",) and plan.bytes_copied == made.nbytes
    with pytest.raises(dlbridge.ConversionRefused, match="its 2 chunks lie apart"):
        dlbridge.to_numpy(x, copy=False)
    assert x.released.count("array") == 9


def test_booleans_are_bits() -> None:
    bits = np.packbits([1, 0, 1, 1], bitorder="little")
    x = Whole(b"b", bits)
    made = dlbridge.to_numpy(x)  # one element is said to be there
    assert made.dtype == bool and made.tolist() == [True]


def test_a_cast_an_order_and_a_place_of_ones_own() -> None:
    x = Chunked(b"g", VALUES, VALUES)
    assert dlbridge.to_numpy(x, dtype="float32").dtype == np.float32
    room = np.zeros(10)
    assert dlbridge.to_numpy(x, out=room) is room and room[:5].tolist() == VALUES.tolist()
    assert dlbridge.to_numpy(Whole(b"g", VALUES), writable=True).flags.writeable
    torch = pytest.importorskip("torch")
    assert dlbridge.to_torch(x).tolist() == [*VALUES, *VALUES]
    assert torch.equal(dlbridge.to_torch(Whole(b"l", np.arange(3))), torch.arange(3))


def test_nulls_are_refused_and_types_are_named() -> None:
    x = Whole(b"g", VALUES, nulls=-1)  # not counted, and none is marked
    assert dlbridge.to_numpy(x).tolist() == VALUES.tolist()
    with pytest.raises(dlbridge.ConversionRefused, match="does not say which"):
        dlbridge.to_numpy(Whole(b"g", VALUES, nulls=2))
    texts = Whole(b"u", VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match="of dtype string"):
        dlbridge.to_numpy(texts)
    assert dlbridge.to_numpy({"a": texts, "b": x})["a"] is texts


@pytest.mark.parametrize(
    "device, under_way, met",
    [
        ((2, 1), 0, "on cuda:1, and columns are read on the host"),
        ((3, 0), 8, "on cuda_host:0, and work on it is under way"),
        ((99, 0), 0, "on "),
    ],
)
def test_a_column_that_the_host_cannot_read_is_refused(
    device: tuple[int, int], under_way: int, met: str
) -> None:
    x = Located(b"g", VALUES)
    x.device, x.under_way = device, under_way
    with pytest.raises(dlbridge.ConversionRefused, match=met):
        dlbridge.to_numpy(x)
    assert sorted(x.released) == ["array", "schema"]


def test_pinned_columns_are_views() -> None:
    x = Located(b"g", VALUES)
    x.device = (3, 0)
    assert dlbridge.to_numpy(x, copy=False).tolist() == VALUES.tolist()


class Answers:
    """What its method gives is the test's."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self.answer()


def raising() -> Any:
    raise KeyError("its own")


def test_what_is_no_pair_of_capsules_is_refused() -> None:
    x = Whole(b"g", VALUES)
    schema, array = x.__arrow_c_array__()
    for answer in (None, (), (schema,), (array, schema), (1, 2)):
        with pytest.raises(dlbridge.ConversionRefused, match="cannot take a Answers in: it"):
            dlbridge.to_numpy(Answers(lambda answer=answer: answer))
    with pytest.raises(KeyError, match="its own"):
        dlbridge.to_numpy(Answers(raising))
    assert dlbridge.to_numpy(Answers(lambda: (schema, array))).tolist() == VALUES.tolist()
    with pytest.raises(dlbridge.ConversionRefused, match="released or moved"):
        dlbridge.to_numpy(Answers(lambda: (schema, array)))
    assert x.released.count("schema") == 1


def test_a_large_gather_lets_others_have_the_gil() -> None:
    x = Chunked(b"g", *[np.zeros(1 << 20)] * 8)
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.0005):
            ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        while ticks == 0:
            done.wait(0.001)
        before = ticks
        for _ in range(10):
            dlbridge.to_numpy(x)
        assert ticks > before
    finally:
        done.set()
        ticker.join()


class Watchful(Whole):
    """Its release runs Python that fails where an error is on its way already."""

    def ender(self, name: str, structure: type[ctypes.Structure]) -> Any:
        end = super().ender(name, structure)

        def watch(address: int) -> None:
            end(address if [1 for _ in range(2)] else 0)

        return self.keep(type(end)(watch))


def test_a_release_does_not_meet_the_refusal() -> None:
    for asked, error in (
        ({"copy": False, "writable": True}, dlbridge.ConversionRefused),
        ({"out": np.zeros(3)}, ValueError),
    ):
        x = Watchful(b"g", VALUES)
        with pytest.raises(error):
            dlbridge.to_numpy(x, **asked)  # type: ignore[call-overload]
        assert x.released.count("array") == x.released.count("schema")
