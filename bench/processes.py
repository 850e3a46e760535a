"""What it costs to hand a tree to another process, each against what torch and Python have for it.

The other process answers when it has read what the line says: the first element, or every page.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as torch_mp
from measure import Line
from torch.utils.data import DataLoader, Dataset, default_collate

import dlbridge
from dlbridge.engines.loader import collate

MIB = 1 << 20


def touched(x: Any, every_page: bool) -> None:
    for leaf in x.values() if isinstance(x, dict) else [x]:
        flat = leaf.reshape(-1)
        flat[:: 4096 // flat.dtype.itemsize].sum() if every_page else flat[0].item()


def read_by_socket(there: socket.socket, every_page: bool) -> None:
    torch.set_num_threads(1)  # the parent's were not forked
    while True:
        touched(dlbridge.recv(there, "numpy"), every_page)
        there.sendall(b"x")


def read_by_queue(queue: Any, answers: Any, every_page: bool) -> None:
    torch.set_num_threads(1)
    while True:
        touched(queue.get(), every_page)
        answers.put(1)


def read_by_name(there: socket.socket) -> None:
    while name := there.recv(100).decode():
        block = shared_memory.SharedMemory(name)
        first = np.frombuffer(block.buf, np.uint8, 1)
        first[0].item()
        del first
        block.close()
        there.sendall(b"x")


class Readers:
    """Children that read one thing after another, each in its way; they end with this process."""

    def __init__(self, every_page: bool, strategy: str = "file_descriptor") -> None:
        context = torch_mp.get_context("fork")
        self._socket, there = socket.socketpair()
        self._named, named_there = socket.socketpair()
        torch_mp.set_sharing_strategy(strategy)
        self._queue, self._answers = context.Queue(), context.Queue()
        for read, arguments in (
            (read_by_socket, (there, every_page)),
            (read_by_queue, (self._queue, self._answers, every_page)),
            (read_by_name, (named_there,)),
        ):
            context.Process(target=read, args=arguments, daemon=True).start()

    def ours(self, x: Any) -> None:
        dlbridge.send(self._socket, x)
        self._socket.recv(1)

    def by_queue(self, x: Any) -> None:
        self._queue.put(x)
        self._answers.get()

    def by_name(self, block: shared_memory.SharedMemory) -> None:
        self._named.sendall(block.name.encode())
        self._named.recv(1)


def line(
    name: str,
    against: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    goal: float,
    calls: int = 3,
    rounds: int = 15,
) -> Line:
    return Line("processes", name, against, ours, peer, goal, calls, rounds)


def hand_over() -> Iterator[Line]:
    first = Readers(every_page=False)
    born = dlbridge.share(dlbridge.shared_empty(1024 * MIB, "uint8"))
    shared = torch.empty(1024 * MIB, dtype=torch.uint8).share_memory_()
    named = shared_memory.SharedMemory(create=True, size=1024 * MIB)
    yield line(
        "1 GiB that is shared already, first element",
        "torch.mp Queue, shared already",
        lambda: first.ours(born),
        lambda: first.by_queue(shared),
        0.05,
    )
    yield line(
        "... against a block by its name",
        "shared_memory by name",
        lambda: first.ours(born),
        lambda: first.by_name(named),
        0.4,
    )
    named.close()
    named.unlink()


def copied() -> Iterator[Line]:
    pages = Readers(every_page=True)
    for size, words, goal in ((int(4.6 * MIB), "4.6 MiB", 0.06), (256 * MIB, "256 MiB", 0.10)):
        x = torch.ones(size // 4)
        yield line(
            f"{words}, copied in and read",
            "torch.mp Queue, fresh tensor",
            lambda x=x: pages.ours(x),  # type: ignore[misc]
            lambda x=x: pages.by_queue(x.clone()),  # type: ignore[misc]
            goal,
            rounds=9,
        )
    many = Readers(every_page=False, strategy="file_system")
    tree = {str(i): torch.ones(256) for i in range(1000)}
    yield line(
        "dict of 1,000 tensors of 1 KiB",
        "torch.mp, file_system",
        lambda: many.ours(tree),
        lambda: many.by_queue({name: each.clone() for name, each in tree.items()}),
        0.1,
        calls=1,
        rounds=9,
    )
    torch_mp.set_sharing_strategy("file_descriptor")


class Photographs(Dataset):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self._photograph = np.zeros((224, 224, 3), np.uint8)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, i: int) -> Any:
        return self._photograph, i


def loaded() -> Iterator[Line]:
    def batches(how: Any) -> Callable[[], Any]:
        loader = iter(DataLoader(Photographs(), 32, num_workers=1, collate_fn=how))

        def batch() -> None:
            images, _ = next(loader)
            images.view(-1)[::4096].sum()

        return batch

    # One loader at a time has work to do: each is as far ahead as it may be when its turn comes.
    yield line(
        "DataLoader: 32 photographs, one worker",
        "default_collate",
        batches(collate),
        batches(default_collate),
        0.25,
        calls=30,
        rounds=9,
    )


def lines() -> Iterator[Line]:
    yield from hand_over()
    yield from copied()
    yield from loaded()
