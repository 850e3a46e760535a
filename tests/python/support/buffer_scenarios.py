"""Run in a child process: what happens to a view when the owner of the memory below it lets go.

    python buffer_scenarios.py SCENARIO...

As lifetime_scenarios.py, for memory that is no tensor's: maps of files, shared memory, buffers of
bytes. Says the same lines.
"""

from __future__ import annotations

import array
import gc
import io
import mmap
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from lifetime_scenarios import Capsuled, churn

import dlbridge

COUNT = 1 << 17  # of float32; a map of this size is unmapped, and reading it then is a crash
VALUES = (np.arange(COUNT) % 251 + 1).astype("f4")


def shown(view: Any) -> np.ndarray:
    if isinstance(view, Capsuled):
        view = view.capsule
    return np.frombuffer(dlbridge.to_numpy(view, copy=True).tobytes(), "f4")


DOORS: dict[str, Callable[[Any], Any]] = {
    "to_numpy": dlbridge.to_numpy,
    "from_dlpack": dlbridge.from_dlpack,
    "to_torch": dlbridge.to_torch,
    "capsule": Capsuled,
}


class Memory:
    """An owner of memory with the values; ``array`` is what is viewed, ``let_go`` what is tried."""

    def let_go(self) -> None:
        """Nothing: the owner is only dropped."""


class Map(Memory):
    def __init__(self) -> None:
        self.map = mmap.mmap(-1, VALUES.nbytes)
        self.map[:] = VALUES.tobytes()
        self.array: Any = self.map


class ClosedMap(Map):
    def let_go(self) -> None:
        self.map.close()


class ResizedMap(Map):
    def let_go(self) -> None:
        self.map.resize(mmap.PAGESIZE)


class ArrayOverMap(Map):
    def __init__(self) -> None:
        super().__init__()
        self.array = np.ndarray(COUNT, "f4", self.map)


class ArrayOverClosedMap(ArrayOverMap):
    def let_go(self) -> None:
        self.array = None
        self.map.close()


class PartOfClosedMap(ArrayOverClosedMap):
    def __init__(self) -> None:
        super().__init__()
        self.array = self.array.reshape(2, -1)[:, :].reshape(-1)[:]


class FileMap(Memory):
    def __init__(self) -> None:
        self.file = tempfile.NamedTemporaryFile()  # noqa: SIM115 closed by let_go()
        self.file.write(VALUES.tobytes())
        self.file.flush()
        self.array = np.memmap(self.file.name, "f4", "r+")

    def let_go(self) -> None:
        self.file.close()


class ClosedFileMap(FileMap):
    def let_go(self) -> None:
        self.array._mmap.close()


class Shared(Memory):
    def __init__(self) -> None:
        self.block = SharedMemory(create=True, size=VALUES.nbytes)
        self.block.buf[: VALUES.nbytes] = VALUES.tobytes()
        self.array: Any = self.block.buf
        self.block.unlink()


class ClosedShared(Shared):
    def let_go(self) -> None:
        self.array = None
        self.block.close()


class ArrayOverShared(Shared):
    def __init__(self) -> None:
        super().__init__()
        self.array = np.ndarray(COUNT, "f4", self.block.buf)


class ArrayOverClosedShared(ArrayOverShared):
    def let_go(self) -> None:
        self.array = None
        self.block.close()


class BufferOfBytesIO(Memory):
    def __init__(self) -> None:
        self.stream = io.BytesIO(VALUES.tobytes())
        self.array = self.stream.getbuffer()


class GrownBytesIO(BufferOfBytesIO):
    def let_go(self) -> None:
        self.stream.seek(0, io.SEEK_END)
        self.stream.write(bytes(1 << 22))


class ClosedBytesIO(BufferOfBytesIO):
    def let_go(self) -> None:
        self.stream.close()


class GrownByteArray(Memory):
    def __init__(self) -> None:
        self.bytes = bytearray(VALUES.tobytes())
        self.array: Any = self.bytes

    def let_go(self) -> None:
        self.bytes.extend(bytes(1 << 22))


class ArrayOverGrownByteArray(GrownByteArray):
    def __init__(self) -> None:
        super().__init__()
        self.array = np.ndarray(COUNT, "f4", self.bytes)

    def let_go(self) -> None:
        self.array = None
        super().let_go()


class GrownArray(Memory):
    def __init__(self) -> None:
        self.numbers = array.array("f", VALUES.tobytes())
        self.array = self.numbers

    def let_go(self) -> None:
        self.numbers.extend(array.array("f", bytes(1 << 22)))


class ReleasedMemoryView(Memory):
    def __init__(self) -> None:
        self.array: Any = memoryview(bytearray(VALUES.tobytes()))

    def let_go(self) -> None:
        self.array.release()


class ResizedArray(Memory):
    def __init__(self) -> None:
        self.array = VALUES.copy()

    def let_go(self) -> None:
        self.array.resize(5)


class ResizedManaged(Memory):
    """A view of the memory that dlbridge itself allocated."""

    def __init__(self) -> None:
        self.array = dlbridge.from_dlpack(VALUES, copy=True)


MEMORIES = {
    kind.__name__: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Memory) and kind is not Memory
}


def scenario_names() -> list[str]:
    return [f"{door}/{name}" for door in DOORS for name in MEMORIES]


def run(name: str) -> str:
    door, kind = name.split("/")
    memory: Any = MEMORIES[kind]()
    view = DOORS[door](memory.array)
    if view is memory.array:
        return "the array itself"  # as safe as NumPy has made it
    outcome = "kept"
    try:
        memory.let_go()
    except (BufferError, ValueError, OSError) as refusal:
        outcome = "raised"
        del refusal
    del memory
    churn(COUNT)
    found = shown(view)
    if not np.array_equal(found, VALUES):
        return f"BROKEN values {found.reshape(-1)[:4]}"
    return outcome


if __name__ == "__main__":
    sys.unraisablehook = lambda _: None  # a block of shared memory cannot close, and says so
    gc.freeze()
    for scenario in sys.argv[1:]:
        print("begin", scenario, flush=True)
        try:
            result = run(scenario)
        except Exception as error:  # the parent's report needs it whatever it is
            result = f"BROKEN {type(error).__name__}: {error}"
        print("end", scenario, result.replace("\n", " "), sep="|", flush=True)
