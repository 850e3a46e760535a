"""Descriptors by address: for processes of this machine, whoever carries the bytes to them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import select
import struct
import sys
import threading
import time
from multiprocessing import process, util
from typing import NamedTuple


class _File(NamedTuple):
    """A descriptor's number in its process, and which file it is of: numbers are used again."""

    number: int
    device: int
    inode: int

    @classmethod
    def of(cls, number: int) -> _File:
        status = os.fstat(number)
        return cls(int(number), status.st_dev, status.st_ino)


class Address(NamedTuple):
    """Where a message's descriptors can be had, for as long as the process that sent it lives."""

    process: int
    files: tuple[_File, ...]
    # The pipe that the ticket is written to once they were; None where they stay for others.
    answers: _File | None = None
    ticket: int = -1


class _Lent(int):
    """A descriptor that somebody may still have to fetch."""

    def __del__(self) -> None:
        os.close(self)


def lent(descriptors: list[int]) -> list[_Lent]:
    return [_Lent(descriptor) for descriptor in descriptors]


def address_of(descriptors: list[int]) -> Address:
    return Address(os.getpid(), tuple(map(_File.of, descriptors)))


class _Lending:
    """What this process sent, and was not told yet that somebody has it.

    A child ends when all of it was fetched, or after a while: as it waits for the items of a queue
    that are not in its pipe yet.
    """

    SECONDS = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[int, list[_Lent]] = {}
        self._pipe: tuple[_Lent, _Lent] | None = None
        self._tickets = itertools.count()
        self._last_awaited = -1
        self._waits = False

    def begin(self) -> None:
        """Called before anything is sent: what comes later may come too late to be waited for."""
        with self._lock:
            if self._pipe is None:
                reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                self._pipe = _Lent(reading), _Lent(writing)
            # Not while its own arguments arrive: only then it knows that it is a child.
            if not self._waits and process.parent_process() is not None:
                util.Finalize(None, self._wait, exitpriority=-10)  # after its queues' threads
                self._waits = True
            self._read_answers()

    def lend(self, descriptors: list[int]) -> Address:
        held = lent(descriptors)
        self.begin()
        with self._lock:
            assert self._pipe is not None
            ticket = next(self._tickets)
            if held:
                self._lent[ticket] = held
                if not _in_loader():
                    self._last_awaited = ticket
            here = address_of(descriptors)
            return here._replace(answers=_File.of(self._pipe[1]), ticket=ticket)

    def _read_answers(self) -> None:
        assert self._pipe is not None
        with contextlib.suppress(BlockingIOError):
            while answers := os.read(self._pipe[0], 4096):
                for (ticket,) in struct.iter_unpack("q", answers):
                    self._lent.pop(ticket, None)

    def _awaited(self) -> bool:
        with self._lock:
            return any(ticket <= self._last_awaited for ticket in self._lent)

    def _wait(self) -> None:
        parent = process.parent_process()
        end = time.monotonic() + self.SECONDS
        while (
            self._awaited() and parent is not None and parent.is_alive() and time.monotonic() < end
        ):
            select.select([self._pipe[0]], [], [], 0.1)  # type: ignore[index]
            self.begin()


def _in_loader() -> bool:
    """In a worker of torch's: a loader that is left early reads no more of what was sent."""
    loading = sys.modules.get("torch.utils.data")
    return loading is not None and loading.get_worker_info() is not None


lending = _Lending()


def _opened(process: int, file: _File, access: int) -> int:
    """Another process's file, opened here; an OSError where it is not the one that was meant.

    Looked at before it is opened: what has its number now may be anything.
    """
    number, device, inode = file
    looked_at = os.open(f"/proc/{process}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    try:
        if _File.of(looked_at)[1:] != (device, inode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return os.open(f"/proc/self/fd/{looked_at}", access | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(looked_at)


def fetched(address: Address, write: bool) -> list[int]:
    """The descriptors of a message, each with a lock of its own; the sender is told."""
    mine: list[int] = []
    try:
        for file in address.files:
            mine.append(_opened(address.process, file, os.O_RDWR if write else os.O_RDONLY))
            fcntl.flock(mine[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        if mine and address.answers is not None:
            answers = _opened(address.process, address.answers, os.O_WRONLY)
            try:
                # Where thousands were not looked at yet, this one stays lent a while longer.
                with contextlib.suppress(BlockingIOError):
                    os.write(answers, struct.pack("q", address.ticket))
            finally:
                os.close(answers)
    except OSError as error:
        for descriptor in mine:
            os.close(descriptor)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise ConnectionError(
            f"the process {address.process} that shared this has ended, or cannot be reached from "
            f"here ({error.strerror}): another container or user, perhaps"
        ) from error
    return mine
