"""share, shared_empty, send, recv: one block, one copy at most, and none writes who may not."""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import address, run_child

import dlbridge
from dlbridge import ConversionRefused, Shared


@pytest.fixture(autouse=True)
def _no_block_is_left() -> Iterator[None]:
    yield
    dlbridge.release_pool()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(20)
        there.settimeout(20)
        yield here, there


def sent(x: Any, *target: Any) -> Any:
    here, there = socket.socketpair()
    with here, there:
        dlbridge.send(here, x)
        return dlbridge.recv(there, *target)


@dataclasses.dataclass
class Sample:
    image: Any
    name: str = "cat"


class Pair(NamedTuple):
    first: Any
    second: Any


def trees() -> dict[str, Any]:
    return {
        "array": np.arange(6.0).reshape(2, 3),
        "tensor": torch.arange(6.0),
        "dict": {"x": np.arange(3), "y": torch.ones(2), "n": 3, "s": "text", "none": None},
        "list": [torch.arange(2), [np.zeros(2)], (1, 2.5, b"b", True)],
        "named tuple": Pair(torch.arange(3), {"k": np.ones(1)}),
        "dataclass": Sample(torch.rand(2, 2)),
        "deque": collections.deque([np.arange(2)], maxlen=3),
        "ordered": collections.OrderedDict(b=np.arange(2), a=torch.arange(2)),
        "default dict": collections.defaultdict(list, a=[np.arange(2)]),
        "empty": {"x": np.empty((0, 3)), "y": torch.empty(2, 0)},
        "a number of NumPy's": {"x": np.float32(3)},
        "managed": [dlbridge.from_dlpack(np.arange(4))],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.generic):
        return type(b) is np.ndarray and b.shape == () and b.dtype == a.dtype and b == a
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (np.ndarray, dlbridge.ManagedTensor)):
        first, second = np.asarray(a), np.asarray(b)
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a):
        return same(vars(a), vars(b))
    return bool(a == b)


@pytest.mark.parametrize("name", trees())
def test_a_tree_arrives_as_it_was_sent(name: str, road: str) -> None:
    x = trees()[name]
    arrived = sent(x)
    assert same(x, arrived), arrived


@pytest.mark.parametrize("name", trees())
@pytest.mark.parametrize("target", ["numpy", "torch", torch])
def test_a_tree_arrives_in_the_library_asked_for(name: str, target: Any, road: str) -> None:
    x = trees()[name]
    assert same(dlbridge.to(dlbridge.share(x), target), sent(x, target))


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "part": lambda: torch.arange(1000.0)[3:7],
    "expanded": lambda: torch.arange(2.0).reshape(2, 1).expand(2, 3),
    "one number": lambda: torch.tensor(3),
    "bool": lambda: torch.tensor([True, False]),
    "bfloat16": lambda: torch.arange(3).bfloat16(),
    "float8": lambda: torch.arange(3).to(torch.float8_e4m3fn),
    "conj": lambda: torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "neg": lambda: torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "in a graph": lambda: torch.arange(3.0, requires_grad=True) * 2,
    "a leaf": lambda: torch.arange(3.0, requires_grad=True),
    "complex": lambda: torch.tensor([1 + 2j]),
    "half": lambda: torch.arange(3).half(),
    "large": lambda: torch.arange(1 << 18).reshape(512, 512).T,
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("mode", ["read", "give", "write"])
def test_a_tensor_arrives_with_its_values(name: str, mode: Any, road: str) -> None:
    x = TENSORS[name]()
    arrived = sent(dlbridge.share(x, mode=mode), "torch")
    assert arrived.dtype == x.dtype and arrived.shape == x.shape
    assert arrived.tolist() == x.tolist()
    assert not arrived.requires_grad and not arrived.is_conj() and not arrived.is_neg()


@pytest.mark.parametrize(
    "x",
    [
        np.arange(10)[::-2],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.zeros(3, dtype=[("a", "i1"), ("b", "f4")])["b"],
        np.frombuffer(bytes(17), np.float32, 4, 1),
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=["reversed", "fortran", "swapped", "bfloat16", "field", "unaligned", "broadcast"],
)
def test_an_array_arrives_with_its_values(x: np.ndarray) -> None:
    arrived = sent(x)
    assert np.array_equal(arrived.astype(float), x.astype(float))
    assert arrived.dtype.newbyteorder("=") == x.dtype.newbyteorder("=") or arrived.dtype == x.dtype


def test_what_is_born_there_is_not_copied(road: str) -> None:
    made = dlbridge.shared_empty((2, 3), "float64")
    array, tensor = dlbridge.to_numpy(made), dlbridge.to_torch(made)
    array[:] = np.arange(6).reshape(2, 3)
    assert address(array) == tensor.data_ptr() and tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    for x in (made, array, tensor, tensor.T, array[1:, ::2], {"a": array, "b": tensor}):
        plan = dlbridge.explain(x, "process")
        for each in plan.values() if isinstance(plan, dict) else [plan]:
            assert each.view and each.bytes_copied == 0
        with dlbridge.no_copies():
            shared = dlbridge.share(x, policy="zero_copy")
        assert same(sent(shared, "numpy"), dlbridge.to_numpy(x))
    with dlbridge.no_copies():
        assert sent(array).tolist() == array.tolist()


def test_what_is_not_born_there_is_copied_once_and_said() -> None:
    x = {"a": np.arange(100), "b": [torch.ones(3), "text"]}
    plans = dlbridge.explain(x, "process")
    assert plans["a"].bytes_copied == 800 and plans["b"][0].bytes_copied == 12
    assert plans["a"].reasons == ("other processes cannot map the memory that it is in",)
    with dlbridge.trace() as ledger:
        dlbridge.share(x)
    assert sum(each.bytes_copied for each in ledger) == 812
    before = dlbridge.stats().bytes_copied
    dlbridge.share(x)
    assert dlbridge.stats().bytes_copied - before == 812
    with pytest.raises(ConversionRefused, match='use policy="host" to copy') as refused:
        dlbridge.share(x, policy="zero_copy")
    assert "x['a']" in refused.value.__notes__[0] if sys.version_info >= (3, 11) else True
    with dlbridge.no_copies(), pytest.raises(ConversionRefused):
        dlbridge.share(x)


def test_a_tree_has_one_block() -> None:
    shared = dlbridge.share({i: np.full(100, i) for i in range(50)})
    _, descriptors = dlbridge._core.pack_shared(shared._tensors, "read", b"")
    for each in descriptors:
        os.close(each)
    assert len(descriptors) == 1
    assert shared.nbytes == 50 * 800 and "50 tensors" in repr(shared)


def test_one_tensor_that_is_there_twice_is_there_once() -> None:
    x = np.arange(3)
    arrived = sent([x, x, {"again": x}])
    assert arrived[0] is arrived[1] and arrived[2]["again"] is arrived[0]


def test_for_reading_is_read_only_to_numpy_and_private_to_torch(road: str) -> None:
    made = dlbridge.shared_empty(4, "float32")
    mine = dlbridge.to_numpy(made)
    mine[:] = 1
    array, tensor = sent(made, "numpy"), sent(made, "torch")
    assert not array.flags.writeable
    with pytest.raises(ValueError):
        array.flags.writeable = True
    tensor[0] = 9
    assert mine.tolist() == [1, 1, 1, 1] and array.tolist() == [1, 1, 1, 1]
    managed = sent(made).tree
    plan = dlbridge.explain(managed, "torch")
    assert plan.view and plan.writable and plan.steps == ("copy on write",)
    assert plan.reasons == (
        "a dlbridge.ManagedTensor that nobody may write to: torch does not know read-only memory",
    )
    assert dlbridge.to_torch(managed, policy="zero_copy").tolist() == [1, 1, 1, 1]
    with pytest.raises(ConversionRefused):
        dlbridge.to_torch(managed, policy="strict")
    copied = dlbridge.to_torch(managed, copy=True)
    mine[:] = 5
    assert copied.tolist() == [1, 1, 1, 1] and tensor[0] == 9


def test_the_kernel_ends_who_writes_past_that() -> None:
    run_child(
        dedent("""
        import ctypes, os, signal, socket
        import numpy as np, dlbridge
        here, there = socket.socketpair()
        dlbridge.send(here, np.arange(4))
        array = dlbridge.recv(there)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            ctypes.memset(array.ctypes.data, 1, 8)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
        """)
    )


def test_for_writing_is_written_to_by_both() -> None:
    made = dlbridge.shared_empty(3, "int64")
    mine = dlbridge.to_numpy(made)
    mine[:] = 0
    theirs = sent(dlbridge.share(made, mode="write"), "numpy")
    theirs[0] = 1
    sent(dlbridge.share(mine, mode="write"), "torch")[1] = 2
    assert mine.tolist() == [1, 2, 0]


def test_what_is_given_is_the_receivers() -> None:
    shared = dlbridge.share(np.arange(3), mode="give")
    theirs = sent(shared, "torch")
    theirs += 1
    assert theirs.tolist() == [1, 2, 3]
    assert repr(shared) == "<dlbridge.Shared, given away>"
    for use in (lambda: shared.tree, lambda: dlbridge.to_numpy(shared), lambda: sent(shared)):
        with pytest.raises(ValueError, match="given away"):
            use()


def test_shared_for_reading_is_copied_to_be_shared_for_writing() -> None:
    made = dlbridge.shared_empty(3)
    sent(made)
    assert dlbridge.explain(made.tree, "process").view
    again = dlbridge.share(made, mode="write")
    assert again.tree.data_ptr != made.tree.data_ptr


def test_a_shared_arrives_as_one_and_can_be_sent_on() -> None:
    shared = dlbridge.share({"x": np.arange(5), "n": 1})
    arrived = sent(shared)
    assert isinstance(arrived, Shared) and arrived.mode == "read"
    onward = sent(arrived)
    del shared, arrived
    assert dlbridge.to_numpy(onward)["x"].tolist() == [0, 1, 2, 3, 4]
    with dlbridge.no_copies():
        further = dlbridge.share(dlbridge.to_numpy(onward))
    assert sent(further, "numpy")["x"].tolist() == [0, 1, 2, 3, 4]


def test_trees_take_a_shared_among_their_parts() -> None:
    inner = dlbridge.share({"y": torch.ones(2)})
    made = dlbridge.to_numpy({"x": np.arange(2), "inner": inner})
    assert made["inner"]["y"].tolist() == [1, 1]
    assert sent([inner, np.zeros(1)], "numpy")[0]["y"].tolist() == [1, 1]


def test_memory_comes_back_to_be_used_again() -> None:
    dlbridge.release_pool()
    place = dlbridge.share(np.zeros(1000)).tree.data_ptr
    assert dlbridge.share(np.zeros(1000)).tree.data_ptr == place
    arrived = sent(np.zeros(1000))
    assert dlbridge.share(np.ones(1000)).tree.data_ptr != place
    assert not arrived.any()


def test_what_was_received_outlives_sender_and_pool() -> None:
    run_child(
        dedent("""
        import os, signal, socket
        import torch, dlbridge
        here, there = socket.socketpair()
        child = os.fork()
        if child == 0:
            dlbridge.send(here, {"x": torch.arange(1000)})
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        arrived = dlbridge.recv(there)
        dlbridge.release_pool()
        assert arrived["x"].tolist() == list(range(1000))
        """)
    )


def test_messages_come_in_order_until_the_end(pair: Any) -> None:
    here, there = pair
    for i in range(10):
        dlbridge.send(here, [np.full(3, i), i])
    here.close()
    for i in range(10):
        array, number = dlbridge.recv(there)
        assert array.tolist() == [i] * 3 and number == i
    with pytest.raises(EOFError, match="closed"):
        dlbridge.recv(there)


def test_a_socket_keeps_its_timeout(pair: Any) -> None:
    pair[1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        dlbridge.recv(pair[1])


def test_a_signal_handler_is_heard_while_waiting(pair: Any) -> None:
    def raises(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raises)
    try:
        pair[1].settimeout(None)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            dlbridge.recv(pair[1])
    finally:
        signal.signal(signal.SIGALRM, before)


def test_others_run_while_one_waits(pair: Any) -> None:
    arrived: list[Any] = []
    reader = threading.Thread(target=lambda: arrived.append(dlbridge.recv(pair[1])))
    reader.start()
    dlbridge.send(pair[0], np.arange(3))
    reader.join(20)
    assert arrived[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        (lambda s: dlbridge.send(s, {"x": np.zeros(1), "o": object()}), TypeError, "dumps"),
        (lambda s: dlbridge.send(s, object()), TypeError, "expected an array or tensor"),
        (lambda s: dlbridge.send(s, [np.zeros(1), np.array(["a"])]), ConversionRefused, "dumps"),
        (lambda s: dlbridge.send(s, np.array(["a"])), ConversionRefused, "<U1"),
        (lambda s: dlbridge.send(s, torch.ones(2, device="meta")), ConversionRefused, "meta"),
        (lambda s: dlbridge.share(np.zeros(1), mode="lend"), ValueError, "'read', 'give', 'write'"),
        (lambda s: dlbridge.shared_empty((2, -1)), ValueError, "negative"),
        (lambda s: dlbridge.shared_empty(2, "float33"), TypeError, "float33"),
        (lambda s: dlbridge.shared_empty(1 << 50), MemoryError, None),
        (lambda s: Shared(), TypeError, "share"),
        (lambda s: __import__("pickle").dumps(dlbridge.share(np.zeros(1))), TypeError, "dumps"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    what: Callable[[Any], Any], error: type[Exception], words: str, pair: Any
) -> None:
    with pytest.raises(error, match=words):
        what(pair[0])
    dlbridge.send(pair[0], np.arange(2))  # and nothing of it was sent
    assert dlbridge.recv(pair[1]).tolist() == [0, 1]


def test_other_sockets_are_refused() -> None:
    with socket.socket(socket.AF_INET) as other, pytest.raises(OSError, match="AF_UNIX"):
        dlbridge.send(other, np.zeros(1))
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, pytest.raises(OSError, match="SOCK_STREAM"):
        dlbridge.recv(there)


def test_nothing_runs_that_a_message_names(pair: Any) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("echo broken; exit 3",)

    class Lazy:  # what a module's own __getattr__ would make
        def __reduce__(self) -> Any:
            return dlbridge.trace, ()

    shared = dlbridge.share(np.zeros(1))
    notes = [pickle.dumps((each, [None])) for each in (Evil(), Lazy())]
    for text in (*notes, b"\x80\x05.", b"garbage", b"", pickle.dumps(3), pickle.dumps((1, []))):
        dlbridge._core.send_shared(pair[0].fileno(), shared._tensors, "read", b"t" + text, 5000)
        with pytest.raises(Exception) as refused:
            dlbridge.recv(pair[1])
        assert isinstance(
            refused.value, (pickle.UnpicklingError, IndexError, TypeError, ValueError)
        )


def test_descriptors_of_a_program_without_python_are_closed(pair: Any) -> None:
    shared = dlbridge.share(np.arange(3))
    before = len(os.listdir("/proc/self/fd"))
    number, tensors = pair[0].fileno(), shared._tensors
    dlbridge._core.send_shared(number, tensors, "read", b"", 5000, [os.dup(0), os.dup(0)])
    assert dlbridge.to_numpy(dlbridge.recv(pair[1])).tolist() == [0, 1, 2]
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_that_others_write_to_is_not_shared_for_reading() -> None:
    made = dlbridge.shared_empty(3, "int64")
    mine = dlbridge.to_numpy(made)
    mine[:] = 0
    theirs = sent(dlbridge.share(made, mode="write"), "numpy")
    assert not dlbridge.explain(mine, "process").view
    reader = sent(mine)
    theirs[0] = 7
    assert mine.tolist() == [7, 0, 0] and reader.tolist() == [0, 0, 0]
    with pytest.raises(ConversionRefused):
        dlbridge.share(mine, policy="zero_copy")
    del theirs
    assert dlbridge.explain(mine, "process").view, "nobody writes to it any more"


def test_memory_that_was_given_is_given_once() -> None:
    made = dlbridge.shared_empty(3, "int64")
    view = dlbridge.to_numpy(made)
    view[:] = 0
    first, second = (dlbridge.share(view, mode="give") for _ in range(2))
    theirs = sent(first, "numpy")
    with pytest.raises(ConversionRefused, match="given away"):
        sent(second)
    assert not dlbridge.explain(view, "process").view
    onward = sent(dlbridge.share(theirs, mode="give"), "numpy")
    onward[0] = 5
    assert onward.tolist() == [5, 0, 0]


def test_one_promise_does_not_break_another(pair: Any) -> None:
    made = dlbridge.shared_empty(3, "int64")
    dlbridge.to_numpy(made)[:] = 1
    dlbridge.send(pair[0], dlbridge.share(made, mode="write"))
    dlbridge.send(pair[0], dlbridge.to_numpy(made))  # a copy
    theirs = dlbridge.recv(pair[1], "numpy")
    theirs[0] = 9
    assert dlbridge.recv(pair[1]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", ["give", "write"])
def test_read_only_memory_is_copied_to_be_written_to(mode: Any) -> None:
    shared = dlbridge.share(np.zeros(3))
    theirs = sent(dlbridge.share(shared, mode=mode), "torch")
    theirs[0] = 9
    assert theirs.tolist() == [9, 0, 0] and not dlbridge.to_numpy(shared).any()


def test_a_give_that_was_not_sent_is_still_here(pair: Any) -> None:
    shared = dlbridge.share(np.arange(3), mode="give")
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        dlbridge.send(pair[0], shared)
    assert dlbridge.to_numpy(shared).tolist() == [0, 1, 2]


def test_two_threads_give_one_thing_once() -> None:
    for _ in range(20):
        shared = dlbridge.share(np.arange(3), mode="give")
        outcomes: list[str] = []

        def give(shared: Shared = shared, outcomes: list[str] = outcomes) -> None:
            try:
                sent(shared)
                outcomes.append("given")
            except ValueError:
                outcomes.append("refused")

        threads = [threading.Thread(target=give) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["given", "refused"]


def test_a_block_that_was_sent_is_used_again_for_what_will_be_read() -> None:
    dlbridge.release_pool()
    places = set()
    for _ in range(5):
        made = dlbridge.shared_empty(1 << 16, "uint8", mode="read")
        dlbridge.to_numpy(made)[:] = 1
        places.add(made.tree.data_ptr)
        sent(made)
        del made
    assert len(places) == 1


def test_what_no_memory_could_hold_is_refused_as_anywhere() -> None:
    """Small memory that is shown often: what a block would take is more than 63 bits count."""
    vast = torch.zeros(1).expand(1 << 41, 1 << 21)
    for x in (vast, [vast, vast]):
        with pytest.raises(ConversionRefused, match="overflows 64 bits"):
            dlbridge.share(x)


def test_what_send_refuses_is_sent_as_its_fix_says(pair: Any) -> None:
    """Of more blocks than a message carries; and of what a policy does not copy."""
    scattered = [dlbridge.to_numpy(dlbridge.shared_empty(1, "u1")) for _ in range(254)]
    for wanted, sent, policy in (("snapshot", scattered, None), ("host", np.ones(2), "strict")):
        with pytest.raises(ConversionRefused) as refused:
            dlbridge.send(pair[0], sent, policy=policy)
        assert f'use policy="{wanted}" to copy' in str(refused.value)
        assert refused.value.reasons[0] in str(refused.value)
        dlbridge.send(pair[0], sent, policy=wanted)
        assert len(dlbridge.recv(pair[1])) == len(sent)
    with pytest.raises(ValueError, match=r"give it to share\(\)"):
        dlbridge.send(pair[0], dlbridge.share(np.ones(2)), policy="host")


def test_a_policy_of_a_block_does_not_lose_a_message(pair: Any) -> None:
    dlbridge.send(pair[0], torch.ones(2))
    with dlbridge.policy("strict"):
        assert dlbridge.recv(pair[1]).tolist() == [1, 1]


def test_without_waiting_there_is_nothing_yet(pair: Any) -> None:
    pair[1].settimeout(0)
    with pytest.raises(BlockingIOError):
        dlbridge.recv(pair[1])


def test_another_thread_may_give_the_tensor_other_memory_meanwhile() -> None:
    """On the linked road: the portable one asks torch's Python, between whose calls others run."""
    if dlbridge._core.torch_road() != "linked":
        pytest.skip("no companion for this torch")
    stop = threading.Event()
    x = torch.ones(1 << 20)

    def change() -> None:
        while not stop.is_set():
            x.set_(torch.ones(1 << 20))  # type: ignore[arg-type]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            assert dlbridge.to_numpy(dlbridge.share(x)).all()
            assert dlbridge.to_numpy(x, copy=True).all()
    finally:
        stop.set()
        thread.join()


def test_sizes_are_anything_that_counts() -> None:
    assert dlbridge.shared_empty(np.int64(3)).tree.shape == (3,)
    assert dlbridge.shared_empty([2, np.int8(3)]).tree.shape == (2, 3)
    assert dlbridge.shared_empty(()).tree.shape == ()


def test_texts_of_numpys_and_enumerations_go_along() -> None:
    import enum

    class Colour(enum.Enum):
        RED = 1

    globals()["Colour"] = Colour
    Colour.__qualname__ = "Colour"
    x = {"x": np.zeros(1), "s": np.array(["a"])[0], Colour.RED: [Colour.RED]}
    arrived = sent(x)
    assert arrived["s"] == "a" and type(arrived["s"]) is str
    assert arrived[Colour.RED] == [Colour.RED]
    assert sent(collections.defaultdict(int, a=np.zeros(1)))["b"] == 0
    with pytest.raises(TypeError, match="ManagedTensor"):
        dlbridge.share({"x": np.zeros(1), dlbridge.from_dlpack(np.zeros(1)): 3})


def test_a_program_without_python_sends_a_tensor_or_a_list(pair: Any) -> None:
    tensors = dlbridge.share([np.arange(2), np.ones(1)])._tensors
    dlbridge._core.send_shared(pair[0].fileno(), tensors, "read", b"", 5000)
    assert [each.nbytes for each in dlbridge.recv(pair[1])] == [16, 8]
    dlbridge._core.send_shared(pair[0].fileno(), tensors[:1], "read", b"", 5000)
    assert dlbridge.recv(pair[1], "numpy").tolist() == [0, 1]


@pytest.mark.skipif(
    "libubsan" in os.environ.get("LD_PRELOAD", ""), reason="UBSan itself needs descriptors"
)
def test_few_descriptors_are_an_error_with_advice() -> None:
    run_child(
        dedent("""
        import resource, socket
        import numpy as np, dlbridge
        here, there = socket.socketpair()
        dlbridge.send(here, np.zeros(3)); dlbridge.recv(there)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while len(held) < 1000:
                held.append(dlbridge.share(np.zeros(3)))
            raise SystemExit("no error")
        except OSError as error:
            assert "ulimit -n" in str(error) and len(held) > 30, error
        held.clear()
        kept = []
        for i in range(1000):  # held trees of one sender need none
            dlbridge.send(here, np.full(3, i))
            kept.append(dlbridge.recv(there)) if i % 50 == 0 else dlbridge.recv(there)
        assert [int(each[0]) for each in kept] == list(range(0, 1000, 50))
        """)
    )


def test_descriptors_of_what_is_kept_are_there_when_they_are_needed() -> None:
    run_child(
        dedent("""
        import resource, socket
        import numpy as np, dlbridge
        here, there = socket.socketpair()
        shared = dlbridge.share(np.zeros(3))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

        def full():
            for size in range(1, 16):  # of each its block and its mapping are kept
                dlbridge.send(here, np.zeros(10000 * size)); dlbridge.recv(there)
            files = []
            try:
                while True:
                    files.append(open("/dev/null"))
            except OSError:
                return files

        files = full()
        dlbridge.send(here, shared)
        assert dlbridge.recv(there).tree.shape == (3,)
        del files
        files = full()
        dlbridge.share(np.zeros(1000000))
        """)
    )


def test_what_a_receivers_child_inherited_is_not_used_again() -> None:
    run_child(
        dedent("""
        import os, socket
        import numpy as np, dlbridge
        here, there = socket.socketpair()
        go, went = os.pipe()
        receiver = os.fork()
        if receiver == 0:
            x = dlbridge.recv(there)
            child = os.fork()
            if child == 0:
                os.read(go, 1)
                os._exit(0 if x.tolist() == list(range(1000)) else 1)
            del x
            there.send(b"x")
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        dlbridge.send(here, np.arange(1000))
        here.recv(1)
        later = [dlbridge.share(np.zeros(1000)) for _ in range(3)]
        os.write(went, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(receiver, 0)[1]) == 0
        """)
    )


def test_what_is_kept_has_a_limit() -> None:
    kept = dedent("""
        import os, sys
        os.environ["DLBRIDGE_SHARED_POOL_BYTES"] = sys.argv[1]
        import numpy as np, dlbridge
        blocks = [dlbridge.share(np.zeros(1 << 15)) for _ in range(6)]  # a quarter of a MiB each
        del blocks
        files = [os.path.realpath(f"/proc/self/fd/{file}") for file in os.listdir("/proc/self/fd")]
        print(sum("memfd:dlbridge" in file for file in files), dlbridge.release_pool())
    """)
    for limit, found in ((1 << 20, (3, 4)), (0, (0,))):
        count, size = map(int, run_child(kept, str(limit)).split())
        assert count in found and size <= limit


def test_a_message_that_is_none_takes_its_descriptors_along() -> None:
    shared = dlbridge.share(np.zeros(3))
    for message, more in (("no bytes", []), (b"no message", []), (None, ["no number"])):
        packed, descriptors = dlbridge._core.pack_shared(shared._tensors, "read", b"")
        with pytest.raises((TypeError, ConversionRefused)):
            dlbridge._core.unpack_shared(message or packed, [*more, *descriptors])  # type: ignore
        for descriptor in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)


@pytest.mark.parametrize("number", [2**31, 2**32, 2**40, -(2**40), 2**70])
def test_a_number_too_large_for_a_descriptor_is_no_other_ones(number: int) -> None:
    packed, descriptors = dlbridge._core.pack_shared(
        dlbridge.share(np.zeros(3))._tensors, "read", b""
    )
    with pytest.raises(OverflowError):
        dlbridge._core.unpack_shared(packed, [number, *descriptors])
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_messages_that_nobody_reads_leave_nothing() -> None:
    dlbridge.share(np.zeros(1))  # the first makes what all share
    dlbridge.release_pool()
    before = len(os.listdir("/proc/self/fd"))
    here, there = socket.socketpair()
    for _ in range(50):
        dlbridge.send(here, np.zeros(1000))
    here.close()
    there.close()
    dlbridge.release_pool()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thousand_trees_are_held_with_few_descriptors(pair: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    shared = dlbridge.share({"x": np.arange(3), "y": torch.ones(2)})
    held = []
    for _ in range(1000):
        dlbridge.send(pair[0], shared)
        held.append(dlbridge.recv(pair[1], "torch"))
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert all(each["x"].tolist() == [0, 1, 2] for each in held)


def test_nothing_is_left_in_dev_shm_nor_among_the_descriptors(pair: Any) -> None:
    before = sorted(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        dlbridge.send(pair[0], {"x": np.zeros(1000), "y": torch.ones(3)})
        dlbridge.recv(pair[1])
    dlbridge.release_pool()
    assert (sorted(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))) == before


def test_the_target_may_be_named_and_an_unknown_one_loses_no_message(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    dlbridge.send(sock=here, obj=np.ones(2))
    with pytest.raises(ValueError, match="nope"):
        dlbridge.recv(there, target="nope")
    assert isinstance(dlbridge.recv(there, target="torch"), torch.Tensor)


def test_what_a_target_refuses_is_the_next_message_still(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    dlbridge.send(here, [torch.ones(2, dtype=torch.float8_e4m3fn)])
    dlbridge.send(here, np.zeros(1))
    for _ in range(2):
        with pytest.raises(dlbridge.ConversionRefused, match="float8_e4m3fn as ctypes"):
            dlbridge.recv(there, "ctypes")
    assert dlbridge.recv(there)[0].dtype == torch.float8_e4m3fn
    assert dlbridge.recv(there).tolist() == [0]


def test_a_named_tuple_that_wants_arrays_arrives(pair: Any) -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.zeros(1)])
    dlbridge.send(pair[0], {"packed": packed, "strict": WantsArrays(np.ones(2), "b")})
    got = dlbridge.recv(pair[1])
    assert torch.equal(got["packed"].data, packed.data)
    assert got["packed"].batch_sizes.tolist() == [2, 1]
    assert type(got["strict"]) is WantsArrays and got["strict"].a.tolist() == [1, 1]


class WantsArrays(collections.namedtuple("WantsArrays", "a b")):
    def __new__(cls, a: Any, b: Any) -> Any:
        if not isinstance(a, np.ndarray):
            raise ValueError("a must be an array")
        return super().__new__(cls, a, b)


HOSTILE = {
    "changes a class": b"ccollections\nUserDict\nN}\x8c\x05helloK\x07s\x86b.",
    "fills memory by a set": b"cbuiltins\nset\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R.",
    "fills memory by bytes": b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "fills memory by a new object": b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85\x81.",
    "is of another protocol": b"(cbuiltins\nbytes\nJ\xff\xff\xff\x7fo.",
    "fills memory by a deque": b"ccollections\ndeque\ncbuiltins\nrange\n"
    b"J\xff\xff\xff\x7f\x85R\x85R.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_changes_no_class_and_fills_no_memory(pair: Any, name: str) -> None:
    shared = dlbridge.share(np.zeros(1))
    note = b"t\x80\x04" + HOSTILE[name]
    dlbridge._core.send_shared(pair[0].fileno(), shared._tensors, "read", note, 5000)
    with pytest.raises(pickle.UnpicklingError, match=r"change a class|nobody wrote|damaged"):
        dlbridge.recv(pair[1])
    assert not hasattr(collections.UserDict, "hello")


def test_texts_in_a_tree_are_refused_with_the_call_that_sends_them(pair: Any) -> None:
    for call in (dlbridge.share, lambda tree: dlbridge.send(pair[0], tree)):
        with pytest.raises(ConversionRefused) as refused:
            call({"names": np.array(["a", "b"]), "x": np.ones(2)})
        assert refused.value.fix == "dlbridge.dumps(x)"


def test_a_message_that_has_no_room_leaves_the_next_one(pair: Any) -> None:
    blocks = [dlbridge.to_numpy(dlbridge.shared_empty((5000,))) for _ in range(20)]
    dlbridge.send(pair[0], blocks)
    dlbridge.send(pair[0], np.ones(3))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, limits[1]))
    try:
        with pytest.raises(ConversionRefused, match="ulimit -n"):
            dlbridge.recv(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert dlbridge.recv(pair[1]).tolist() == [1, 1, 1]


def test_a_socket_that_is_not_connected_is_told_so() -> None:
    with socket.socket(socket.AF_UNIX) as alone, pytest.raises(OSError) as error:
        dlbridge.recv(alone)
    assert error.value.errno == errno.ENOTCONN


NUMBERS: list[tuple[list[Any], list[Any] | None]] = [
    ([1, 2], [1, 2]),
    ([1, 2.5], [1, 2.5]),
    ([True, False], [True, False]),
    ([2**63 + 1, 1], None),
    ([2**53 + 1, 0.5], None),
    ([2**70, 1], None),
]


@pytest.mark.parametrize(("samples", "batch"), NUMBERS)
def test_numbers_of_a_batch_stay_what_they_are(samples: list[Any], batch: list[Any] | None) -> None:
    from dlbridge.engines.loader import collate

    if batch is None:
        with pytest.raises(ValueError, match="fit one type"):
            collate(samples)
        return
    assert collate(samples).tolist() == batch
    ordered = collate([collections.OrderedDict(a=each) for each in samples])
    assert type(ordered) is collections.OrderedDict and ordered["a"].tolist() == batch


@dataclasses.dataclass(frozen=True)
class Labelled:
    image: Any
    label: int


def test_a_batch_of_dataclasses_is_one_and_of_another_tree_a_type_error() -> None:
    from dlbridge.engines.loader import collate

    batch = collate([Labelled(np.full(2, i), i) for i in range(3)])
    assert type(batch) is Labelled and batch.image.shape == (3, 2)
    assert batch.label.tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="not deque"):
        collate([collections.deque([np.zeros(2)])] * 2)


@dataclasses.dataclass
class Measured:
    values: Any
    mean: Any = dataclasses.field(init=False)

    @functools.cached_property
    def total(self) -> float:
        return float(self.values.sum())


def test_a_batch_of_dataclasses_has_what_they_have_and_computes_the_rest() -> None:
    from dlbridge.engines.loader import collate

    samples = [Measured(np.ones(2)), Measured(np.full(2, 2.0))]
    assert samples[0].total == 2
    batch = collate(samples)
    assert batch.total == 6 and not hasattr(batch, "mean") and samples[0].total == 2
    for sample in samples:
        sample.mean = sample.values.mean()
    assert collate(samples).mean.tolist() == [1, 2]
    del samples[1].mean
    with pytest.raises(AttributeError, match="mean"):
        collate(samples)


def test_a_batch_of_counters_counts_as_its_samples() -> None:
    from dlbridge.engines.loader import collate

    samples = [collections.Counter(a=1, b=2), collections.Counter(a=3, b=4)]
    batch = collate(samples)
    assert batch["a"].tolist() == [1, 3] and batch["b"].tolist() == [2, 4]
    assert samples[0] == collections.Counter(a=1, b=2)
