"""The ledger: what it writes down, what it forbids, and what it costs when it is closed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import ctypes
import html.parser
import inspect
import itertools
import json
import mmap
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import run_child

import dlbridge


def here(offset: int = 0) -> int:
    """The number of the line that calls."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno + offset


def test_a_crossing_is_written_down_whole(road: str) -> None:
    reversed_array = np.arange(6.0)[::-1]
    with dlbridge.trace() as log:
        line = here(1)
        dlbridge.to_torch(reversed_array)
    (crossing,) = log
    assert (crossing.file, crossing.line) == (__file__, line)
    assert crossing.function == "test_a_crossing_is_written_down_whole"
    assert crossing.code == "dlbridge.to_torch(reversed_array)"
    assert (crossing.source, crossing.target) == ("numpy.ndarray", "torch.Tensor")
    assert (crossing.shape, crossing.dtype, crossing.device) == ((6,), "float64", "cpu")
    assert (crossing.outcome, crossing.nbytes, crossing.bytes_copied) == ("copy", 48, 48)
    assert crossing.steps == ("repack",) and "negative strides" in crossing.reasons[0]
    assert crossing.nanoseconds is not None and 0 < crossing.nanoseconds < 10**9


def test_every_door_is_watched() -> None:
    array = np.arange(4.0)
    tensor = torch.arange(4.0)
    with dlbridge.trace() as log:
        dlbridge.to_numpy(tensor)
        dlbridge.to_numpy(tensor, dtype="float64")
        dlbridge.to_torch(array)
        dlbridge.to_torch(array, copy=True)
        dlbridge.to(tensor, "numpy")
        dlbridge.to(array, "torch")
        managed = dlbridge.from_dlpack(array)
        dlbridge.capsule(array)
        managed.__array__()
    assert [each.target for each in log] == [
        "numpy.ndarray",
        "numpy.ndarray",
        "torch.Tensor",
        "torch.Tensor",
        "numpy.ndarray",
        "torch.Tensor",
        "dlbridge.ManagedTensor",
        "dlbridge.ManagedTensor",
        "numpy.ndarray",
    ]
    assert {each.file for each in log} == {__file__}
    assert [each.outcome for each in log].count("copy") == 2


def test_what_stays_itself_does_not_cross() -> None:
    array, tensor = np.ones(2), torch.ones(2)
    with dlbridge.trace() as log:
        assert dlbridge.to_numpy(array) is array
        assert dlbridge.to_torch(tensor) is tensor
        dlbridge.explain(tensor, "numpy")
        dlbridge.explain(tensor.to_sparse(), "numpy")
    assert len(log) == 0


def test_outside_of_the_block_nothing_is_written_down() -> None:
    tensor = torch.ones(2)
    with dlbridge.trace() as log:
        dlbridge.to_numpy(tensor)
    dlbridge.to_numpy(tensor)
    assert len(log) == 1
    with pytest.raises(ZeroDivisionError), log:
        dlbridge.to_numpy(tensor)
        raise ZeroDivisionError
    dlbridge.to_numpy(tensor)
    assert len(log) == 2


def test_blocks_nest_and_each_sees_its_own() -> None:
    tensor = torch.ones(2)
    with dlbridge.trace() as outer:
        dlbridge.to_numpy(tensor)
        with dlbridge.trace() as inner:
            dlbridge.to_numpy(tensor)
    assert (len(outer), len(inner)) == (2, 1)


def test_a_refusal_is_written_down_with_its_line() -> None:
    with dlbridge.trace() as log, pytest.raises(dlbridge.ConversionRefused):
        line = here(1)
        dlbridge.to_numpy(torch.eye(2).to_sparse())
    (crossing,) = log
    assert (crossing.outcome, crossing.line, crossing.bytes_copied) == ("refused", line, 0)
    assert log.total.refusals == 1


def test_a_crossing_inside_a_producer_has_an_entry_of_its_own() -> None:
    class Producer:
        def __dlpack__(self, **keywords: Any) -> Any:
            self.inner = dlbridge.to_numpy(torch.ones(2))
            return np.ones(3).__dlpack__(**keywords)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    with dlbridge.trace() as log:
        dlbridge.to_numpy(Producer())
    # NumPy before 2.1 knows no max_version, and its producer is asked again without.
    asked = 1 if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else 2
    assert [each.shape for each in log] == [(2,)] * asked + [(3,)]
    assert all(each.nanoseconds for each in log)


def test_a_crossing_that_fails_on_its_way_is_not_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Producer:
        def __dlpack__(self, **keywords: Any) -> Any:
            raise KeyError("mine")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    with dlbridge.trace() as log, pytest.raises(KeyError):
        dlbridge.to_numpy(Producer())
    assert len(log) == 0


def test_a_copy_that_fails_is_not_written_down(road: str) -> None:
    endless = torch.zeros(1).expand(1 << 50)
    with dlbridge.trace() as log, pytest.raises(MemoryError):
        dlbridge.to_numpy(endless, copy=True)
    assert len(log) == 0


def test_the_line_is_the_users_own_and_not_a_librarys() -> None:
    """A crossing inside of torch's backward belongs to the line that called backward."""

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            exec(crossing_in_torch, {"__name__": "torch.nn", "x": gradient, "dlbridge": dlbridge})
            return gradient * 2

    crossing_in_torch = "dlbridge.to_numpy(x)"
    total = Double.apply(torch.ones(3, requires_grad=True)).sum()
    with dlbridge.trace() as log:
        total.backward()
    assert [each.file for each in log] == [__file__]
    assert log[0].function == "backward"


def test_this_thread_alone_or_all_of_them() -> None:
    def work() -> None:
        dlbridge.to_numpy(torch.ones(2))

    for threads, expected in ((False, 1), (True, 3)):
        with dlbridge.trace(threads=threads) as log:
            work()
            for _ in range(2):
                worker = threading.Thread(target=work)
                worker.start()
                worker.join()
        assert len(log) == expected
    assert len({each.thread for each in log} - {threading.get_ident()}) >= 1


def test_tasks_of_asyncio_keep_their_own() -> None:
    async def work(policy: str, log: list[bool]) -> None:
        with dlbridge.policy(policy):
            await asyncio.sleep(0)
            log.append(dlbridge.explain(torch.ones(1, requires_grad=True), "numpy").refused)

    async def both() -> None:
        await asyncio.gather(work("strict", strict), work("host", host))

    strict: list[bool] = []
    host: list[bool] = []
    asyncio.run(both())
    assert (strict, host) == ([True], [False])


def allocated() -> int:
    """Bytes that glibc's allocator has given out."""

    class Info(ctypes.Structure):
        _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]

    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("no mallinfo2() in this C library")
    library.mallinfo2.restype = Info
    info = library.mallinfo2()
    return int(info.field7 + info.field4)  # uordblks, and hblkhd: what was mapped


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer's allocator counts itself"
)
def test_the_bytes_are_those_of_the_allocator() -> None:
    sources: list[Any] = [
        np.ones((256, 1024))[::-1],
        np.broadcast_to(np.float32(1), (1 << 19,)),
        np.ones(1 << 18, dtype=">f8"),
        np.ones(1 << 19, dtype="f4"),  # a view: no bytes
    ]
    with dlbridge.trace() as log:
        dlbridge.to_torch(sources[0])  # what is loaded on first use is there from here on
    log.crossings.clear()
    dlbridge.release_pool()  # or memory of ended copies would do
    before = allocated()
    with log:
        kept = [dlbridge.to_torch(source) for source in sources]
    grown = allocated() - before
    copied = log.total.bytes_copied
    assert copied == 3 * (2 << 20)  # below the size from which memory comes in huge pages
    assert abs(grown - copied) < 64 << 10, (grown, copied)
    assert len(kept) == 4


def make_log() -> tuple[dlbridge.Ledger, int]:
    small, large = np.ones(3)[::-1], np.ones((100, 10))[::-1]
    with dlbridge.trace() as log:
        line = here(1)
        for _ in range(3):
            dlbridge.to_torch(small)
        dlbridge.to_torch(large)
        dlbridge.to_numpy(torch.ones(2, requires_grad=True))
    return log, line


def test_lines_are_grouped_and_the_most_bytes_come_first() -> None:
    log, line = make_log()
    lines = log.lines
    assert [each.first.line for each in lines] == [line + 2, line + 1, line + 3]
    assert [(each.times, each.copies, each.bytes_copied) for each in lines] == [
        (1, 1, 8000),
        (3, 3, 72),
        (1, 0, 0),
    ]
    total = log.total
    assert (total.crossings, total.views, total.copies, total.bytes_copied) == (5, 1, 4, 8072)
    assert total.nanoseconds == sum(each.nanoseconds or 0 for each in log)


@pytest.mark.parametrize("with_rich", [True, False])
def test_print_shows_the_table(with_rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    log, line = make_log()
    text = str(log)
    first, second = text.index(f"test_ledger.py:{line + 2}"), text.index(f"ledger.py:{line + 1}")
    assert first < second
    assert "8,000 B" in text and "view, read-only" in text
    assert "4 copies of 8,072 B" in text
    assert ("─" in text) == with_rich


def test_as_json_and_records() -> None:
    log, line = make_log()
    whole = json.loads(log.to_json())
    assert whole["total"]["bytes_copied"] == 8072
    assert whole["crossings"][0]["line"] == line + 1
    assert whole["crossings"][3]["shape"] == [100, 10]


def test_as_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    log, _ = make_log()
    frame = log.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.groupby("code").bytes_copied.sum().max() == 8000


def test_without_pandas_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_records"):
        make_log()[0].to_pandas()


def test_as_html(tmp_path: Any) -> None:
    class Reader(html.parser.HTMLParser):
        rows = 0
        open_tags: list[str]

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.rows += tag == "tr"
            if tag != "meta":
                self.open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open_tags.pop() == tag

    reader = Reader()
    reader.open_tags = []
    path = tmp_path / "ledger.html"
    log, _ = make_log()
    reader.feed(log.html(path))
    assert reader.rows == 4 and reader.open_tags == []
    assert path.read_text(encoding="utf-8") == log._repr_html_()
    assert "dlbridge.to_torch(large)" in path.read_text(encoding="utf-8")


def test_as_a_trace_for_perfetto(tmp_path: Any) -> None:
    path = tmp_path / "trace.json"
    log, line = make_log()
    log.to_chrome_trace(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == 5
    assert all({"name", "ts", "dur", "pid", "tid"} <= set(event) for event in slices)
    for one, next_one in itertools.pairwise(slices):
        assert one["ts"] + one["dur"] <= next_one["ts"]
    assert slices[0]["args"]["line"] == f"{__file__}:{line + 1}"
    assert [e["args"]["bytes"] for e in events if e["ph"] == "C"][-1] == 8072
    assert {e["tid"] for e in events if e["ph"] == "M"} == {e["tid"] for e in slices}


def test_a_crossing_begins_where_its_time_does(tmp_path: Any) -> None:
    """Most of it passes before the plan stands: in the producer, which is asked first."""

    class Slow:
        def __dlpack_device__(self) -> tuple[int, int]:
            time.sleep(0.02)
            return (1, 0)

        def __dlpack__(self, **keywords: Any) -> Any:
            time.sleep(0.02)
            return np.ones(3).__dlpack__(**keywords)

    with dlbridge.trace() as log:
        for make in (Slow, lambda: np.ones(3), Slow):
            dlbridge.to_torch(make())
    path = tmp_path / "trace.json"
    log.to_chrome_trace(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert [each["dur"] > 20000 for each in slices] == [True, False, True]
    for one, next_one in itertools.pairwise(slices):
        assert one["ts"] + one["dur"] <= next_one["ts"]


def test_stats_count_since_start() -> None:
    before = dlbridge.stats()
    dlbridge.to_numpy(torch.ones(3))
    dlbridge.to_torch(np.ones(3)[::-1])
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(torch.eye(2).to_sparse())
    after = dlbridge.stats()
    assert after.crossings - before.crossings == 2
    assert after.views - before.views == 1
    assert after.copies - before.copies == 1
    assert after.refusals - before.refusals == 1
    assert after.bytes_copied - before.bytes_copied == 24
    assert after.by_target["torch"].copies - before.by_target["torch"].copies == 1
    assert after.by_target["numpy"].views - before.by_target["numpy"].views == 1


def test_no_copies_raises_before_anything_is_copied() -> None:
    array = np.ones(3)[::-1]
    before = dlbridge.stats()
    with dlbridge.no_copies():
        dlbridge.to_numpy(torch.ones(3))
        with pytest.raises(dlbridge.ConversionRefused) as refused:
            line = here(1)
            dlbridge.to_torch(array)
    assert f"{__file__}:{line}" in str(refused.value)
    assert "negative strides" in str(refused.value) and "24 bytes" in str(refused.value)
    assert refused.value.reasons and refused.value.fix
    after = dlbridge.stats()
    assert after.bytes_copied == before.bytes_copied
    assert after.refusals - before.refusals == 1
    dlbridge.to_torch(array)


def test_no_copies_holds_for_copies_that_are_asked_for_and_is_told_to_the_ledger() -> None:
    with dlbridge.trace() as log, dlbridge.no_copies():
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(torch.ones(3), copy=True)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to(torch.ones(3), "numpy", dtype="float16")
    assert [each.outcome for each in log] == ["refused", "refused"]


def test_no_copies_leaves_other_threads_alone() -> None:
    results: list[Any] = []
    with dlbridge.no_copies():
        worker = threading.Thread(
            target=lambda: results.append(dlbridge.to_torch(np.ones(3)[::-1]))
        )
        worker.start()
        worker.join()
    assert len(results) == 1


def test_a_policy_for_a_block() -> None:
    in_a_graph = torch.ones(2, requires_grad=True)
    with dlbridge.policy("strict") as chosen:
        assert chosen is dlbridge.strict
        for call in (dlbridge.to_numpy, dlbridge.from_dlpack, dlbridge.capsule):
            with pytest.raises(dlbridge.ConversionRefused):
                call(in_a_graph)
        assert dlbridge.explain(in_a_graph, "numpy").refused
        assert not dlbridge.to_numpy(in_a_graph, policy="host").flags.writeable
        with dlbridge.policy(dlbridge.host.replace(grad="detach_writable")):
            assert dlbridge.to_numpy(in_a_graph).flags.writeable
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to(in_a_graph, "numpy", copy=True)
    assert not dlbridge.to_numpy(in_a_graph).flags.writeable


def test_blocks_in_generators_end_in_any_order_and_anywhere() -> None:
    def block() -> Iterator[None]:
        with dlbridge.policy("strict"), dlbridge.no_copies(), dlbridge.trace():
            yield

    first, second = block(), block()
    next(first)
    next(second)
    first.close()
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(np.ones(3)[::-1])
    second.close()
    with dlbridge.trace() as log:  # a block, so that it is asked what was left behind
        dlbridge.to_torch(np.ones(3)[::-1])
    assert len(log) == 1

    elsewhere, there = block(), contextvars.Context()
    there.run(next, elsewhere)
    elsewhere.close()
    with dlbridge.trace():
        there.run(dlbridge.to_torch, np.ones(3)[::-1])


def test_a_block_that_a_generator_shares_is_ended_by_who_entered_it() -> None:
    shared = dlbridge.no_copies()

    def generator() -> Iterator[None]:
        with shared:
            yield

    elsewhere, there = generator(), contextvars.Context()
    with shared as nothing:
        there.run(next, elsewhere)
        elsewhere.close()  # here, in the other's block
        with pytest.raises(dlbridge.ConversionRefused, match="would copy"):
            dlbridge.to_torch(np.ones(3)[::-1])
    assert nothing is None
    there.run(dlbridge.to_torch, np.ones(3)[::-1])


def test_a_ledger_ends_the_block_of_the_context_that_ends_it() -> None:
    log, one, other = dlbridge.trace(), contextvars.Context(), contextvars.Context()
    one.run(log.__enter__)
    other.run(log.__enter__)
    one.run(log.__exit__)
    one.run(dlbridge.to_torch, np.ones(3))
    assert not log.crossings
    other.run(dlbridge.to_torch, np.ones(3))
    assert len(log) == 1
    other.run(log.__exit__)


def test_a_block_is_ended_by_no_other_thread() -> None:
    def end(*blocks: Any) -> list[str]:
        return [str(pool.submit(block.__exit__, None, None, None).exception()) for block in blocks]

    log = dlbridge.trace()
    shared = dlbridge.no_copies(), dlbridge.policy("zero_copy"), log
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with contextlib.ExitStack() as stack:
            for block in shared:
                stack.enter_context(block)
            assert all("not open in this thread" in refused for refused in end(*shared))
            with pytest.raises(dlbridge.ConversionRefused, match="would copy"):
                dlbridge.to_torch(np.ones(3)[::-1], policy="host")
            assert [each.outcome for each in log] == ["refused"]
        assert all("not open in this thread" in refused for refused in end(*shared))
    assert not dlbridge.explain(np.ones(3)[::-1], "torch").refused


@pytest.mark.parametrize("by_stack", [False, True])
def test_a_generator_may_be_ended_by_another_thread(by_stack: bool) -> None:
    def block() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if by_stack:
                stack.enter_context(dlbridge.no_copies())
                yield
            else:
                with dlbridge.no_copies():
                    yield

    opened = block()
    next(opened)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(opened.close).result()
    dlbridge.to_torch(np.ones(3)[::-1])


def test_a_block_may_end_with_no_python_below() -> None:
    out = run_child(
        """
import atexit, dlbridge
block = dlbridge.no_copies()
block.__enter__()
atexit.register(lambda: print(dlbridge.to_numpy(b"ab", copy=True)))
atexit.register(block.__exit__, None, None, None)
"""
    )
    assert out.strip() == "[97 98]"


@pytest.mark.parametrize(("wrong", "error"), [("stricter", ValueError), (3, TypeError)])
def test_a_policy_that_is_none_is_refused_at_once(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="preset"), dlbridge.policy(wrong):
        pass
    assert not dlbridge.to_numpy(torch.ones(1, requires_grad=True)).flags.writeable


def test_the_ledger_needs_neither_torch_nor_rich() -> None:
    out = run_child(
        """
import sys
import dlbridge, numpy as np
with dlbridge.trace() as log:
    dlbridge.to_numpy(b"abc")
dlbridge.stats(), repr(log)
print(sorted({"torch", "rich", "pandas"} & set(sys.modules)), len(log))
"""
    )
    assert out == "[] 1\n"


def test_views_that_alternate_are_each_told_as_they_are() -> None:
    # The words of a plain view are remembered for the next.
    frozen = np.zeros(4, "f4")
    frozen.flags.writeable = False
    sources = [np.zeros(4), np.zeros(4, "f4"), frozen, np.zeros((2, 2)), torch.zeros(4)]
    with dlbridge.trace() as log:
        for _ in range(3):
            for source in sources:
                dlbridge.from_dlpack(source)
    told = [(c.source, c.dtype, c.shape, c.writable) for c in log]
    array, tensor = "numpy.ndarray", "torch.Tensor"
    assert told == 3 * [
        (array, "float64", (4,), True),
        (array, "float32", (4,), True),
        (array, "float32", (4,), False),
        (array, "float64", (2, 2), True),
        (tensor, "float32", (4,), True),
    ]


def _of_a_row(managed: Any) -> Any:
    return dlbridge.to_numpy(managed)  # as the row of a library may do


def register_row(name: str, take: Callable[[Any], Any], **how: Any) -> None:
    honours = dlbridge.Capabilities(read_only="honours")
    dlbridge.register(dlbridge.Library(name=name, capabilities=honours, take=take, **how))


@pytest.fixture
def row() -> str:
    """The name of a library whose row takes by calls of dlbridge's own."""
    register_row(
        "ledger_row", _of_a_row, address=lambda array: dlbridge.from_dlpack(array).data_ptr
    )
    return "ledger_row"


@pytest.mark.parametrize("target", ["ledger_row", "memoryview"])
def test_what_a_row_makes_cross_for_its_target_is_part_of_that_crossing(
    row: str, target: str
) -> None:
    before = dlbridge.stats()
    with dlbridge.trace() as log:
        dlbridge.to(torch.ones(3), target)
    assert [(each.source, each.outcome) for each in log] == [("torch.Tensor", "view")]
    dlbridge.to(torch.ones(3), target)  # without a ledger
    assert dlbridge.stats().crossings == before.crossings + 2


def test_no_copies_forbids_what_a_row_copies_for_its_target() -> None:
    register_row("copying_row", lambda managed: dlbridge.to_numpy(managed, copy=True))
    assert dlbridge.to(np.ones(3), "copying_row").tolist() == [1, 1, 1]
    refused = pytest.raises(dlbridge.ConversionRefused, match="would copy")
    with dlbridge.trace() as log, dlbridge.no_copies(), refused as caught:
        dlbridge.to(np.ones(3), "copying_row")
    assert caught.value.plan.refused and [each.outcome for each in log] == ["refused"]


def test_a_decorated_function_has_its_block_in_every_thread() -> None:
    @dlbridge.no_copies()
    def cross(array: Any) -> None:
        dlbridge.to_torch(array)
        with pytest.raises(dlbridge.ConversionRefused, match="would copy"):
            dlbridge.to_numpy(array, copy=True)

    def often() -> None:
        for _ in range(200):
            cross(np.ones(3))
        dlbridge.to_numpy(np.ones(3), copy=True)  # no block is left

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(often) for _ in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("target", ["ledger_row", "memoryview"])
def test_a_row_follows_no_block(row: str, target: str) -> None:
    array = np.arange(3)
    with dlbridge.policy("snapshot"), warnings.catch_warnings():
        warnings.simplefilter("error")  # of a silent copy
        assert np.shares_memory(dlbridge.to(array, target, policy="host"), array)
        assert np.shares_memory(dlbridge.to(array, target, copy=False), array)
        assert not np.shares_memory(dlbridge.to(array, target), array)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_block_that_a_row_opens_holds_for_what_it_makes_cross(everywhere: bool) -> None:
    logs = []

    def take(managed: Any) -> Any:
        with dlbridge.policy("snapshot"), dlbridge.trace(threads=everywhere) as log:
            logs.append(log)
            return dlbridge.to_numpy(managed)

    register_row("blocks_row", take)
    array = np.arange(3)
    before = dlbridge.stats()
    with dlbridge.policy("host"), dlbridge.trace(threads=everywhere) as outside:
        assert not np.shares_memory(dlbridge.to(array, "blocks_row"), array)
    dlbridge.to(array, "blocks_row")  # without a block around it
    assert [[each.outcome for each in log] for log in (outside, *logs)] == [
        ["view"],
        ["copy"],
        ["copy"],
    ]
    assert dlbridge.stats().crossings == before.crossings + 2


@pytest.mark.parametrize("caught", [False, True])
def test_a_refusal_is_the_callers_unless_the_row_catches_it(caught: bool) -> None:
    def take(managed: Any) -> Any:
        try:
            return dlbridge.to_numpy(managed, dtype="int8", copy=False)
        except dlbridge.ConversionRefused:
            if not caught:
                raise
        return dlbridge.to_numpy(managed)

    register_row("trying_row", take)
    before = dlbridge.stats().refusals
    with dlbridge.trace() as log, contextlib.suppress(dlbridge.ConversionRefused):
        dlbridge.to(np.arange(3), "trying_row")
    assert [each.outcome for each in log] == ["view" if caught else "refused"]
    assert dlbridge.stats().refusals == before + (not caught)


@pytest.mark.parametrize("copy", [None, True])
def test_what_its_target_does_not_take_counts_as_refused_alone(copy: bool | None) -> None:
    def take(managed: Any) -> Any:
        raise dlbridge.ConversionRefused("not today")

    register_row("refusing_row", take)
    before = dlbridge.stats()
    with pytest.raises(dlbridge.ConversionRefused, match="not today"):
        dlbridge.to(np.arange(3), "refusing_row", copy=copy)
    after = dlbridge.stats()
    assert after._replace(refusals=before.refusals) == before
    assert after.refusals == before.refusals + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda x: dlbridge.to_numpy(x, dtype="uint8"),
        lambda x: dlbridge.to_numpy(x, dtype="uint8", out=np.zeros(2, "u1")),
        lambda x: dlbridge.to_numpy([x], dtype="uint8"),
        lambda x: dlbridge.to_torch(x, dtype="uint8"),
        lambda x: dlbridge.to(x, "numpy", dtype="uint8"),
        lambda x: dlbridge.from_dlpack(x).__array__("uint8"),
    ],
)
def test_a_value_that_does_not_fit_is_a_refusal_to_the_ledger(call: Any) -> None:
    before = dlbridge.stats()
    with dlbridge.trace() as log, pytest.raises(dlbridge.ConversionRefused, match="300"):
        line = here(1)
        call(np.array([1, 300]))
    assert [each.outcome for each in log][-1] == "refused"
    after = dlbridge.stats()
    assert (after.refusals, after.copies) == (before.refusals + 1, before.copies)
    assert {each.file for each in log} == {__file__} and line


def test_a_capsule_that_is_empty_is_a_refusal_to_the_ledger() -> None:
    capsule = dlbridge.capsule(np.ones(1))
    dlbridge.from_dlpack(capsule)
    with dlbridge.trace() as log, pytest.raises(dlbridge.ConversionRefused, match="used already"):
        dlbridge.from_dlpack(capsule)
    assert [each.outcome for each in log] == ["refused"]


def test_what_is_no_number_has_its_bytes() -> None:
    kinds = ("M8[D]", "m8[s]", "U3", "S2", "O", "longdouble", [("a", "i4"), ("b", "f8", (2,))])
    texts = ("T",) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else ()
    arrays = [np.zeros(2, kind) for kind in (*kinds, *texts)]
    aligned = np.zeros(2, np.dtype([("a", "i1"), ("b", "i4")], align=True))
    with dlbridge.trace() as log:
        for array in (*arrays, aligned):
            dlbridge.to_numpy(array, copy=True)
    assert [each.nbytes for each in log] == [each.bytes_copied for each in log]
    assert [each.nbytes for each in log] == [array.nbytes for array in (*arrays, aligned)]


def test_what_a_row_asks_for_follows_no_block_around_it() -> None:
    """A Pickler asks when it is made."""

    def send(*_: Any) -> Any:
        return dlbridge.dumps(np.ones((3, 4))[:, ::2])

    register_row("sending_row", send)
    with dlbridge.policy("strict"):
        with pytest.raises(dlbridge.ConversionRefused, match="C order"):
            send()
        assert len(dlbridge.to(np.arange(3), "sending_row", policy="host")) == 2


def test_a_capsule_that_is_empty_is_a_refusal_of_share_too() -> None:
    capsule = dlbridge.capsule(np.ones(1))
    dlbridge.from_dlpack(capsule)
    with dlbridge.trace() as log, pytest.raises(dlbridge.ConversionRefused, match="used already"):
        dlbridge.share(capsule)
    assert [each.outcome for each in log] == ["refused"]


@pytest.mark.parametrize(
    "refused", [torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex64).conj()]
)
def test_what_crossed_before_a_refusal_in_a_tree_is_told(refused: torch.Tensor) -> None:
    before = dlbridge.stats()
    with dlbridge.trace() as log, dlbridge.no_copies(), pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy([torch.ones(2), refused])
    assert [each.outcome for each in log] == ["view", "refused"]
    assert dlbridge.stats().views == before.views + 1


def test_an_explanation_of_what_cannot_be_read_refuses_nothing() -> None:
    capsule = dlbridge.capsule(np.ones(1))
    dlbridge.from_dlpack(capsule)
    before = dlbridge.stats()
    assert dlbridge.explain(capsule, "numpy").refused
    assert dlbridge.stats() == before


@pytest.mark.parametrize("call", [dlbridge.to_torch, dlbridge.from_dlpack])
def test_what_lies_in_memory_that_was_closed_does_not_count(call: Any) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    array = np.ndarray(4, buffer=memory)
    memory.close()
    before = dlbridge.stats()
    with pytest.raises(ValueError, match="closed"):
        call(array)
    assert dlbridge.stats() == before


class _Calendar:
    """Dates that a library's row reads as an array of NumPy's."""


def test_what_is_read_as_an_array_of_dates_crosses() -> None:
    dlbridge.register(
        dlbridge.Library(
            name="calendar_row",
            modules=(__name__,),
            read=lambda _: np.array(["2026-11-30"], "M8[s]"),
        )
    )
    with dlbridge.trace() as log:
        for copy in (None, True):
            assert dlbridge.to_numpy(_Calendar(), copy=copy).dtype == "M8[s]"
    told = [(each.source, each.target, each.outcome) for each in log]
    assert told == [
        ("calendar_row._Calendar", "numpy.ndarray", "view"),
        ("calendar_row._Calendar", "numpy.ndarray", "copy"),
    ]
    assert dlbridge.explain(_Calendar(), "numpy").result == "numpy.ndarray"


def test_a_block_is_refused_where_it_would_end_before_the_work_begins() -> None:
    async def coroutine() -> None: ...

    async def answers() -> Any:
        yield 1

    def generator() -> Any:
        yield 1

    for function in (coroutine, answers, generator):
        for block in (dlbridge.policy("strict"), dlbridge.no_copies()):
            with pytest.raises(TypeError, match="use the block inside it"):
                block(function)
