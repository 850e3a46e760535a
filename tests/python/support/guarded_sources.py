"""Producers of tensors on the guarded device, whose memory faults when the host touches it.

The device type is kDLExtDev. Work on its streams is done when its turn comes: a test holds a
stream, or delays all of them, so that what nobody waited for visibly has not happened.
"""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import dlbridge_guarded as guarded
import numpy as np
import pytest

import dlbridge
from dlbridge import _core

TYPE = guarded.DEVICE_TYPE
NAME = "ext_dev"
CHUNK = 2 << 20  # bytes of a staging buffer (lib/src/device/staging.cpp)
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_DEFAULT_STREAM = 1  # DLPack's number for it

VALUES = np.arange(12, dtype="f4").reshape(3, 4)


def same(array: np.ndarray, expected: np.ndarray) -> None:
    assert array.dtype == expected.dtype and array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def triple(dtype: np.dtype) -> list[int]:
    return [_CODES[dtype.kind], dtype.itemsize * 8, 1]


class Plain:
    """A producer with __dlpack__ and nothing else; orders its work before its consumer's stream."""

    tensor_type: Any = guarded.Tensor

    def __init__(
        self,
        values: np.ndarray,
        *,
        id: int = 0,
        stream: int = 0,
        late: bool = False,
        strides: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        place: tuple[int, int] | None = None,
        flags: int = 0,
        byte_offset: int = 0,
    ) -> None:
        values = np.ascontiguousarray(values)
        first = np.full_like(values, 77) if late else values
        self.memory = guarded.DeviceMemory(first.tobytes(), id, stream)
        if late:
            self.memory.store_later(values.tobytes())
        self.stream = stream
        self.id = id
        self.calls: list[dict[str, Any]] = []
        self.tensor = self.tensor_type(
            self.memory,
            list(values.shape if shape is None else shape),
            strides=None if strides is None else list(strides),
            dtype=triple(values.dtype),
            place=place,
            flags=flags,
            byte_offset=byte_offset,
        )

    @property
    def deletes(self) -> int:
        return int(self.tensor.deletes)

    @property
    def exports(self) -> int:
        return int(self.tensor.exports)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.place

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None) -> Any:
        self.calls.append({"stream": stream})
        if stream is not None and stream != -1:
            reader = 0 if stream == _DEFAULT_STREAM else stream
            guarded.order(self.stream, reader, self.id)
        return self.tensor.capsule()


class CopiesToHost(Plain):
    """A producer that brings its memory to the host when it is asked to."""

    def __init__(self, values: np.ndarray, **how: Any) -> None:
        super().__init__(values, **how)
        self.values = values
        self.asked = 0

    def __dlpack__(  # type: ignore[override]
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None
    ) -> Any:
        if dl_device is None:
            return super().__dlpack__(stream=stream, max_version=max_version)
        assert tuple(dl_device) == (1, 0)
        self.asked += 1
        copied = dlbridge.from_dlpack(self.values, copy=True)  # NumPy 1 knows no max_version
        return copied.__dlpack__(max_version=(1, 0))


class ByTable(guarded.TableTensor):
    """A producer with an exchange table, which orders nothing but tells its current stream."""


def by_table(values: np.ndarray, *, id: int = 0, stream: int = 0, late: bool = False) -> ByTable:
    first = np.full_like(values, 77) if late else values
    memory = guarded.DeviceMemory(first.tobytes(), id, stream)
    if late:
        memory.store_later(values.tobytes())
    guarded.set_current_stream(stream, id)
    return ByTable(memory, list(values.shape), dtype=triple(values.dtype))


PRODUCERS = {"dlpack": Plain, "table": by_table}
each_producer = pytest.mark.parametrize("make", PRODUCERS.values(), ids=PRODUCERS)


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """The guarded device as a runtime of the module; nothing may be left on it afterwards."""
    guarded.settle()
    guarded.faults()
    guarded.begin_count()
    before = guarded.counts()
    _core.register_device_runtime(TYPE, guarded.runtime_capsule())
    try:
        yield
    finally:
        guarded.set_current_stream(0, 0)
        guarded.settle()
        settle()
        guarded.settle()
        _core.release_pinned_memory()
        after = guarded.counts()
        faults = guarded.faults()
        _core.register_device_runtime(TYPE, None)
    assert faults == []
    lost = {"pinned": _may_be_lost.pop() if _may_be_lost else 0}
    for name in ("allocations", "pinned", "managed", "events"):
        left = after[name] - before[name]  # what a failed test held may go meanwhile
        assert left <= lost.get(name, 0), f"{left} {name} left"


_may_be_lost: list[int] = []


def may_lose(blocks: int) -> None:
    """Pinned memory that a failed device may still write to is lost rather than used again."""
    _may_be_lost.append(blocks)


def settle() -> None:
    """Carries out what a deleter called without the GIL had to leave for later."""
    import gc

    gc.collect()
    dlbridge.from_dlpack(np.zeros(1))
    gc.collect()


class Later:
    """A call on a thread of its own, while a stream is held."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(timeout=90)
        assert self.ended, "it hung"
        if self._error is not None:
            raise self._error
        return self._result


def while_held(call: Callable[[], Any], stream: int = 0, id: int = 0) -> Any:
    """The call's result; it must wait for the stream, which is held until it evidently does."""
    guarded.hold(stream, id)
    later = Later(call)
    later._thread.join(timeout=0.1)
    waited = not later.ended
    guarded.let_go(stream, id)
    result = later.result()
    assert waited, "it did not wait for work that had not been done"
    return result


def without_waiting(call: Callable[[], Any], stream: int = 0, id: int = 0) -> Any:
    """The call's result; it must not wait for the stream, which stays held."""
    guarded.hold(stream, id)
    later = Later(call)
    later._thread.join(timeout=20)
    waited = not later.ended
    if waited:
        guarded.let_go(stream, id)
    result = later.result()
    assert not waited, "it waited for the stream"
    return result


_torch_backend: list[Any] = []


def torch_backend() -> Any:
    """torch with the guarded device as its backend: torch.device("guarded:0"), torch.guarded."""
    import torch

    if not _torch_backend:
        import dlbridge_guarded_torch as backend

        backend.open(guarded.device_address())
        torch.utils.rename_privateuse1_backend("guarded")
        module = types.ModuleType("torch.guarded")
        module.is_available = lambda: True  # type: ignore[attr-defined]
        module.device_count = lambda: 2  # type: ignore[attr-defined]
        module.current_device = lambda: 0  # type: ignore[attr-defined]
        # What torch asks of every backend when it seeds its generators: there is none here.
        module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
        module.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]
        module.get_rng_state = lambda device=None: torch.empty(0)  # type: ignore[attr-defined]
        module.set_rng_state = lambda state, device=None: None  # type: ignore[attr-defined]
        module.get_amp_supported_dtype = list  # type: ignore[attr-defined]
        module.set_current_stream = backend.set_current_stream  # type: ignore[attr-defined]
        torch._register_device_module("guarded", module)
        _torch_backend.append(backend)
    return torch
