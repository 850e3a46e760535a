"""Memory of devices for other processes, by a stand-in for cuda.core on the guarded device."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from textwrap import dedent
from typing import Any
from weakref import WeakSet

import dlbridge_guarded as guarded
import numpy as np
import pytest
import torch
from cuda_core_stand_in import CUDA, installed
from dlb_support import run_child
from guarded_sources import VALUES, Plain, same, settle, while_held

import dlbridge
from dlbridge import ConversionRefused

pytestmark = pytest.mark.usefixtures("cuda_core")

STAYS = dlbridge.host.replace(device="refuse")
COPIES_NOTHING = STAYS.replace(copy=False)


@pytest.fixture
def cuda_core() -> Iterator[list[str]]:
    with installed() as calls:
        yield calls


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def on_device(values: np.ndarray = VALUES, id: int = 0, **how: Any) -> Plain:
    return Plain(values, id=id, place=(CUDA, id), **how)


def loans() -> int:
    from dlbridge.processes import devices

    settle()
    devices._end_loans()
    return len(devices._loans)


def test_it_goes_to_the_host_where_the_policy_takes_it_there(pair: Any, cuda_core: Any) -> None:
    dlbridge.send(pair[0], on_device())
    received = dlbridge.recv(pair[1])
    assert received.device.type == 1 and cuda_core == []
    same(dlbridge.to_numpy(received), VALUES)


def test_it_stays_where_the_policy_refuses_that(pair: Any, cuda_core: Any) -> None:
    x = on_device(late=True)
    plan = dlbridge.explain(x, "process", policy=STAYS)
    assert plan.steps == ("repack",) and plan.bytes_copied == VALUES.nbytes
    assert plan.reasons == ("other processes cannot map the memory that it is in",)
    guarded.begin_count()
    dlbridge.send(pair[0], {"x": x, "y": np.ones(2), "n": 3}, policy=STAYS)
    received = dlbridge.recv(pair[1])
    assert guarded.counts()["to_host"] == 0
    assert cuda_core == ["record", "map pool", "wait", "map"]
    assert tuple(received["x"].device) == (CUDA, 0) and received["x"].readonly
    assert received["y"].tolist() == [1, 1] and received["n"] == 3
    same(dlbridge.to_numpy(received["x"]), VALUES)
    assert x.deletes == x.exports


def test_both_ends_let_go_in_their_order(pair: Any, cuda_core: Any) -> None:
    dlbridge.send(pair[0], on_device(), policy=STAYS)
    settle()
    assert loans() == 1 and "free" not in cuda_core  # it is on its way
    received = dlbridge.recv(pair[1])
    assert loans() == 1
    cuda_core.clear()
    del received
    assert loans() == 0
    assert cuda_core == ["unmap", "sync", "free"]


@pytest.mark.parametrize("strides", [None, (1, 3)])
@pytest.mark.parametrize("dtype", ["f4", "i8", "u1", "c8"])
def test_types_and_layouts_arrive(pair: Any, dtype: str, strides: Any) -> None:
    values = np.arange(12).astype(dtype).reshape(4, 3)
    shape = values.shape if strides is None else (3, 4)
    x = on_device(values, shape=shape, strides=None if strides is None else (1, 3))
    wanted = values if strides is None else np.ascontiguousarray(values.T)
    dlbridge.send(pair[0], [x, on_device(values[:0])], policy=STAYS)
    made, empty = dlbridge.recv(pair[1])
    same(dlbridge.to_numpy(made), wanted)
    assert empty.shape == (0, 3) and empty.device.type == CUDA


def test_what_lies_in_the_pool_is_not_copied_under_any_policy(pair: Any) -> None:
    shared = dlbridge.share(on_device(), policy=STAYS)
    for policy in (None, "zero_copy", COPIES_NOTHING):
        assert dlbridge.explain(shared.tree, "process", policy=policy).view
        with dlbridge.no_copies():
            dlbridge.send(pair[0], [shared.tree], policy=policy)
        [received] = dlbridge.recv(pair[1])
        assert received.data_ptr == shared.tree.data_ptr
    del received
    assert loans() == 0


@pytest.mark.parametrize("policy", ["zero_copy", "strict", COPIES_NOTHING])
def test_foreign_memory_is_refused_where_nothing_is_copied(policy: Any) -> None:
    x = on_device()
    with pytest.raises(ConversionRefused) as refused:
        dlbridge.share(x, policy=policy)
    assert refused.value.fix and dlbridge.explain(x, "process", policy=policy).refused
    del refused
    assert x.deletes == x.exports


@pytest.mark.parametrize("mode", ["write", "give"])
def test_memory_to_write_to_is_the_same_memory(pair: Any, mode: Any) -> None:
    shared = dlbridge.share(on_device(), mode=mode, policy=STAYS)
    address = shared.tree.data_ptr
    dlbridge.send(pair[0], shared)
    received = dlbridge.recv(pair[1])
    assert received.mode == mode and not received.tree.readonly
    assert received.tree.data_ptr == address


def test_what_one_process_was_promised_holds_for_the_next(pair: Any) -> None:
    shared = dlbridge.share(on_device(), mode="write", policy=STAYS)
    dlbridge.send(pair[0], shared)
    dlbridge.send(pair[0], shared)
    received = [dlbridge.recv(pair[1]), dlbridge.recv(pair[1])]
    assert not dlbridge.explain(shared.tree, "process").view  # a copy in the pool
    assert dlbridge.explain(shared.tree, "process", policy=COPIES_NOTHING).refused
    received.clear()
    assert loans() == 0
    assert dlbridge.explain(shared.tree, "process").view


def test_its_neighbours_are_not_taken_for_it(pair: Any) -> None:
    values = np.arange(64, dtype="f4")
    side_by_side = [dlbridge.share(on_device(values + i), policy=STAYS) for i in range(8)]
    places = [shared.tree.data_ptr for shared in side_by_side]
    assert np.ptp(np.diff(places)) == 0 and places[1] - places[0] == values.nbytes
    for i, shared in enumerate(side_by_side):
        dlbridge.send(pair[0], shared)
        same(dlbridge.to_numpy(dlbridge.recv(pair[1])), values + i)


@pytest.mark.parametrize("dtype", [(2, 32, 4), (1, 8, 3), (17, 4, 2)])
def test_vectors_arrive(pair: Any, dtype: Any) -> None:
    x = on_device()
    x.tensor = guarded.Tensor(x.memory, [1], dtype=list(dtype), place=(CUDA, 0))
    dlbridge.send(pair[0], x, policy=STAYS)
    received = dlbridge.recv(pair[1])
    assert tuple(received.dtype) == dtype and received.device.type == CUDA


def test_who_made_it_alone_hands_it_on(pair: Any, monkeypatch: Any) -> None:
    from dlbridge.processes import devices

    dlbridge.send(pair[0], dlbridge.share(on_device(), policy=STAYS))
    received = dlbridge.recv(pair[1])
    with monkeypatch.context() as another_process:
        another_process.setattr(devices, "_made", WeakSet())
        with pytest.raises(ConversionRefused, match=r"share\(x.tree\)"):
            dlbridge.send(pair[0], received)
        again = dlbridge.share(received.tree, policy=STAYS)
        dlbridge.send(pair[0], again)
        same(dlbridge.to_numpy(dlbridge.recv(pair[1])), VALUES)


def test_who_wrote_is_waited_for(pair: Any) -> None:
    stream = guarded.make_stream()
    x = on_device(stream=stream)
    guarded.hold(stream)
    x.memory.store_later((VALUES + 1).tobytes())
    dlbridge.send(pair[0], x, policy=STAYS)  # nobody waits on the host
    received = dlbridge.recv(pair[1])
    guarded.let_go(stream)
    same(dlbridge.to_numpy(received), VALUES + 1)


def test_torch_is_waited_for_which_wrote_to_it_since(pair: Any, monkeypatch: Any) -> None:
    theirs = guarded.make_stream()
    current = types.SimpleNamespace(cuda_stream=theirs)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    shared = dlbridge.share(on_device(), mode="write", policy=STAYS)

    def there() -> np.ndarray:
        dlbridge.send(pair[0], shared)
        return dlbridge.to_numpy(dlbridge.recv(pair[1]))

    same(while_held(there, theirs), VALUES)


def test_a_child_frees_nothing() -> None:
    run_child(
        dedent("""
        import gc, os
        from cuda_core_stand_in import CUDA, installed
        from guarded_sources import VALUES, Plain
        import dlbridge
        stays = dlbridge.host.replace(device="refuse")
        with installed() as calls:
            shared = [dlbridge.share(Plain(VALUES, place=(CUDA, 0)), policy=stays)]
            child = os.fork()
            shared.clear()
            gc.collect()
            if child == 0:
                os._exit("free" in calls)
            assert os.waitpid(child, 0)[1] == 0 and "free" in calls
        """)
    )


def test_each_device_has_its_pool_and_its_event(pair: Any, cuda_core: Any) -> None:
    tree = [on_device(), on_device(VALUES * 2, id=1), on_device(VALUES * 3)]
    dlbridge.send(pair[0], tree, policy=STAYS)
    received = dlbridge.recv(pair[1])
    assert (cuda_core.count("wait"), cuda_core.count("map pool")) == (2, 2)
    assert [tuple(each.device) for each in received] == [(CUDA, 0), (CUDA, 1), (CUDA, 0)]
    for times, each in enumerate(received, 1):
        same(dlbridge.to_numpy(each), VALUES * times)


def test_a_receiver_that_is_killed_lets_go(pair: Any) -> None:
    dlbridge.send(pair[0], on_device(), policy=STAYS)
    holds = """if True:
        import signal, socket, sys
        sock = socket.socket(fileno=int(sys.argv[1]))
        message = socket.recv_fds(sock, 1 << 16, 8)
        sock.send(b"x")
        signal.pause()
    """
    number = pair[1].fileno()
    child = subprocess.Popen([sys.executable, "-c", holds, str(number)], pass_fds=[number])
    assert pair[0].recv(1) == b"x"
    assert loans() == 1
    child.kill()
    child.wait()
    assert loans() == 0


def test_a_message_that_nobody_reads_ends_with_its_socket() -> None:
    here, there = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    dlbridge.send(here, on_device(), policy=STAYS)
    assert loans() == 1
    here.close()
    there.close()
    assert loans() == 0
    assert len(os.listdir("/proc/self/fd")) <= before


def test_without_cuda_core_it_is_as_it_was(pair: Any, monkeypatch: Any) -> None:
    dlbridge.send(pair[0], on_device(), policy=STAYS)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(ConversionRefused, match="on cuda:0"):
        dlbridge.share(on_device(), policy=STAYS)
    with pytest.raises(ConversionRefused, match="cuda-core"):
        dlbridge.recv(pair[1])
    assert dlbridge.share(on_device()).tree.device.type == 1
    monkeypatch.undo()


def test_a_queue_does_not_carry_it() -> None:
    from dlbridge.processes.places import place_for_one

    shared = dlbridge.share(on_device(), policy=STAYS)
    with pytest.raises(ConversionRefused, match=r"dlbridge.send\(sock, x\)"):
        place_for_one(shared)


# What a message is changed to: its pools, blocks, lines, the tree's note.
DAMAGED: dict[str, Any] = {
    "short": lambda p, b, x, n: (p, b, [x[:-1]], n),
    "a call": lambda p, b, x, n: (p, [(0, b"\x80\x04cbuiltins\nprint\n.")], [x], n),
    "a reach": lambda p, b, x, n: (
        p,
        [(0, b"\x80\x04ccuda.core.stand_in\nIPCBufferDescriptor._init.__globals__.get\n.")],
        [x],
        n,
    ),
    "no module": lambda p, b, x, n: (
        p,
        [(0, b"\x80\x04ccuda.core.nope\nIPCBufferDescriptor._init\n.")],
        [x],
        n,
    ),
    "no block": lambda p, b, x, n: (p, [(0, b"")], [x], n),
    "another block": lambda p, b, x, n: (p, [(0, p[0][2])], [x], n),
    "beyond": lambda p, b, x, n: (p, b, [(*x[:2], 64, *x[3:])], n),
    "far beyond": lambda p, b, x, n: (p, b, [(*x[:2], 1 << 64, *x[3:])], n),
    "a place before": lambda p, b, x, n: (p, b, [(-1, *x[1:])], n),
    "a place far away": lambda p, b, x, n: (p, b, [(1 << 70, *x[1:])], n),
    "memory from the end": lambda p, b, x, n: (p, b, [(x[0], -1, *x[2:])], n),
    "memories": lambda p, b, x, n: (p, b, [(x[0], slice(0, 1), *x[2:])], n),
    "no pool": lambda p, b, x, n: (p, [(-1, b[0][1])], [x], n),
    "no type": lambda p, b, x, n: (p, b, [(*x[:3], (2, 300, 1), *x[4:])], n),
    "a text": lambda p, b, x, n: (p, b, [x], 5),
}


def recv_damaged(pair: Any, note: bytes, lent: Any) -> None:
    dlbridge._core.send_shared(pair[0].fileno(), lent[0], "read", note, 5000, lent[2])
    with pytest.raises((pickle.UnpicklingError, ConversionRefused)) as refused:
        dlbridge.recv(pair[1])
    assert getattr(refused.value, "fix", None) is None  # it is no want of cuda.core
    del refused
    gc.collect()
    assert loans() == 0


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_note_is_refused(pair: Any, fault: str) -> None:
    from dlbridge.processes import devices
    from dlbridge.processes.notes import read, written

    shared = dlbridge.share(on_device(), policy=STAYS)
    lent = devices.lent(shared._tensors, "read", b"t" + shared._note)
    pools, blocks, [line], inner = read(lent[1], [])
    recv_damaged(pair, b"d" + written(DAMAGED[fault](pools, blocks, line, inner), []), lent)


@pytest.mark.parametrize("kind", [b"d", b"t"])
def test_a_note_that_ends_early_is_refused(pair: Any, kind: bytes) -> None:
    from dlbridge.processes import devices

    shared = dlbridge.share(on_device(), policy=STAYS)
    recv_damaged(pair, kind, devices.lent(shared._tensors, "read", b""))
