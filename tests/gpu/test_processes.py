"""Memory of a GPU in another process: mapped there, in order, and given back by both."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any

import pytest
import torch
from gpu_support import Delay

import dlbridge

cuda = pytest.importorskip("cuda.core")

STAYS = dlbridge.host.replace(device="refuse")

Start = Callable[[str], socket.socket]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that runs `work` on what it receives, until it is told to end."""
    ends: list[Any] = []

    def started(work: str) -> socket.socket:
        here, there = socket.socketpair()
        program = dedent("""
            import socket, sys, torch, dlbridge
            sock = socket.socket(fileno=int(sys.argv[1]))
            torch.zeros(1, device="cuda")
            sock.send(b"r")
        """) + dedent(work)
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(there.fileno())], pass_fds=[there.fileno()]
        )
        there.close()
        here.settimeout(120)
        ends.append((here, child))
        assert here.recv(1) == b"r"
        return here

    yield started
    for here, child in ends:
        here.close()
        assert child.wait(120) in (0, -signal.SIGKILL)


def loans() -> int:
    from dlbridge.processes import devices

    devices._end_loans()
    return len(devices._loans)


def test_values_types_and_layouts_arrive_on_the_device(start: Start) -> None:
    x = torch.arange(60.0, device="cuda").reshape(3, 4, 5)
    tree = [x, x.mT, x[:, ::2], x.bfloat16(), torch.complex(x, x).conj(), x[0, 0, 0], x[:0]]
    plan = dlbridge.explain(x, "process", policy=STAYS)
    assert plan.bytes_copied == 240 and "copy to host" not in plan.steps
    sock = start("""
        tree = dlbridge.recv(sock)
        assert all(each.device.type == "cuda" for each in tree)
        dlbridge.send(sock, tree)  # by the host
    """)
    dlbridge.send(sock, tree, policy=STAYS)
    for received, sent in zip(dlbridge.recv(sock), tree, strict=True):
        assert torch.equal(received, sent.resolve_conj().cpu())


def test_foreign_memory_is_refused_where_nothing_is_copied() -> None:
    x = torch.ones(3, device="cuda")
    for policy in ("zero_copy", "strict", STAYS.replace(copy=False)):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.share(x, policy=policy)


def test_what_is_shared_to_write_to_is_one_memory(start: Start) -> None:
    shared = dlbridge.share(torch.ones(1000, device="cuda"), mode="write", policy=STAYS)
    sock = start("""
        x = dlbridge.to_torch(dlbridge.recv(sock))
        x += 1
        torch.cuda.synchronize()
        sock.send(b"w")
        sock.recv(1)
    """)
    with dlbridge.no_copies():
        dlbridge.send(sock, shared)
    assert sock.recv(1) == b"w"
    assert bool((dlbridge.to_torch(shared) == 2).all())
    assert loans() == 1


def test_a_late_kernel_is_waited_for_by_the_other_process(start: Start, delay: Delay) -> None:
    sock = start("""
        dlbridge.send(sock, dlbridge.recv(sock))
    """)
    x = torch.zeros(1 << 20, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        delay()
        x += 1
        dlbridge.send(sock, x, policy=STAYS)
    assert bool((dlbridge.recv(sock) == 1).all())


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_memory_is_lent_until_its_reader_has_let_go(start: Start, ends: str) -> None:
    sock = start("""
        import os, signal
        x = dlbridge.recv(sock, "dlbridge")
        sock.send(b"g")
        how = sock.recv(1)
        if how == b"k":
            os.kill(os.getpid(), signal.SIGKILL)
        del x
        sock.send(b"d")
    """)
    dlbridge.send(sock, torch.ones(1 << 20, device="cuda"), policy=STAYS)
    assert sock.recv(1) == b"g" and loans() == 1
    sock.send(b"k" if ends == "killed" else b"d")
    assert sock.recv(1) == (b"" if ends == "killed" else b"d")
    assert loans() == 0
    again = dlbridge.share(torch.full((1 << 20,), 3.0, device="cuda"), policy=STAYS)
    assert bool((dlbridge.to_numpy(again) == 3).all())


def test_the_current_device_stays() -> None:
    before = torch.cuda.current_device()
    for index in range(torch.cuda.device_count()):
        dlbridge.share(torch.ones(3, device=f"cuda:{index}"), policy=STAYS)
        assert torch.cuda.current_device() == before
