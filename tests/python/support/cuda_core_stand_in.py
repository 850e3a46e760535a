"""A stand-in for what dlbridge calls of cuda.core: its devices are the guarded ones.

Its pools' memory is the guarded device's, which faults when the host touches it, under the type of
CUDA. It knows by its own tables what a descriptor is of: nothing is mapped, so that sender and
receiver are one process, or a parent and its forked child.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import dlbridge_guarded as guarded
from guarded_sources import registered, settle

from dlbridge import _core

CUDA = 2
MODULE = "cuda.core.stand_in"
calls: list[str] = []  # of what orders, frees and maps
_numbers = itertools.count(1)
_exported: dict[bytes, Any] = {}


class Device:
    current = 0

    def __init__(self, device_id: int | None = None) -> None:
        self.device_id = Device.current if device_id is None else device_id
        self.uuid = f"GPU-{self.device_id}"

    def set_current(self) -> None:
        Device.current = self.device_id

    @staticmethod
    def get_all_devices() -> tuple[Device, ...]:
        return Device(0), Device(1)


class Stream:
    def __init__(self, handle: int) -> None:
        self.handle = handle

    from_handle = staticmethod(lambda handle: Stream(handle))

    def record(self, event: None = None, options: Any = None) -> Event:
        assert options.ipc_enabled
        calls.append("record")
        return Event(self.handle, Device.current)

    def wait(self, other: Event | Stream) -> None:
        calls.append("wait")
        before = other.stream if isinstance(other, Event) else other.handle
        guarded.order(before, self.handle, Device.current)

    def sync(self) -> None:
        calls.append("sync")
        guarded.wait_for(self.handle, Device.current)


class _Descriptor:
    def __init__(self, *_: Any) -> None:
        raise RuntimeError("descriptors are made by what they are of")

    payload: bytes

    def __reduce__(self) -> Any:
        return type(self)._init, (self.payload, 0)

    @classmethod
    def of(cls, what: Any) -> Any:
        payload = str(next(_numbers)).encode()
        _exported[payload] = what
        return cls._init(payload, 0)


def _make(kind: type[_Descriptor]) -> Any:
    def _init(payload: bytes, _: Any) -> Any:
        made = object.__new__(kind)
        made.payload = payload
        return made

    _init.__module__, _init.__qualname__ = MODULE, f"{kind.__name__}._init"
    return staticmethod(_init)


class IPCBufferDescriptor(_Descriptor):
    pass


class IPCEventDescriptor(_Descriptor):
    pass


for _kind in (IPCBufferDescriptor, IPCEventDescriptor):
    _kind.__module__ = MODULE
    _kind._init = _make(_kind)  # type: ignore[attr-defined]


class EventOptions(types.SimpleNamespace):
    pass


class DeviceMemoryResourceOptions(types.SimpleNamespace):
    pass


class Event:
    alive = 0

    def __init__(self, stream: int, device: int) -> None:
        self.stream, self.device = stream, device
        Event.alive += 1

    def __del__(self) -> None:
        Event.alive -= 1

    @property
    def ipc_descriptor(self) -> IPCEventDescriptor:
        return IPCEventDescriptor.of((self.stream, self.device))

    @staticmethod
    def from_ipc_descriptor(descriptor: IPCEventDescriptor) -> Event:
        return Event(*_exported[descriptor.payload])


class Buffer:
    def __init__(self, memory: Any, size: int, mapped: bool) -> None:
        self.memory, self.size, self.mapped = memory, size, mapped
        self.handle = memory.address

    @property
    def ipc_descriptor(self) -> IPCBufferDescriptor:
        return IPCBufferDescriptor.of((self.memory, self.size))

    @staticmethod
    def from_ipc_descriptor(mr: Any, descriptor: IPCBufferDescriptor, *, stream: Any) -> Buffer:
        assert mr.mapped
        calls.append("map")
        return Buffer(*_exported[descriptor.payload], True)

    def close(self) -> None:
        if self.memory is not None:
            calls.append("unmap" if self.mapped else "free")
        self.memory = None

    __del__ = close


class _Part:
    """So many bytes of an allocation that others lie in too, side by side."""

    def __init__(self, whole: Any, first: int) -> None:
        self.whole, self.address = whole, whole.address + first


_TOGETHER, _ALIGNED = 1 << 12, 256  # bytes of what buffers are cut out of, and between them


class DeviceMemoryResource:
    def __init__(self, device: int, options: Any, mapped: bool = False) -> None:
        assert options.ipc_enabled
        self.device, self.mapped = device, mapped
        self._handle = os.memfd_create("a pool")
        self._whole: Any = None
        self._used = 0

    allocation_handle = property(lambda self: self._handle)

    @classmethod
    def from_allocation_handle(cls, device: int, handle: int) -> DeviceMemoryResource:
        assert os.readlink(f"/proc/self/fd/{handle}").startswith("/memfd:a pool")
        calls.append("map pool")
        return cls(device, DeviceMemoryResourceOptions(ipc_enabled=True), True)

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert not self.mapped
        if self._whole is None or self._used + size > _TOGETHER:
            together = b"\0" * max(size, _TOGETHER)
            self._whole = guarded.DeviceMemory(together, self.device, stream.handle)
            self._used = 0
        part = _Part(self._whole, self._used)
        self._used += -(-size // _ALIGNED) * _ALIGNED
        return Buffer(part, size, False)

    def __del__(self) -> None:
        os.close(self._handle)


@contextlib.contextmanager
def installed() -> Iterator[list[str]]:
    """The guarded device as CUDA's, with this module as cuda.core: the calls that it is told of."""
    from dlbridge.processes import devices

    here = sys.modules[__name__]
    package = types.ModuleType("cuda")
    package.core = here  # type: ignore[attr-defined]
    names = {"cuda": package, "cuda.core": here, MODULE: here}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        with registered():
            _core.register_device_runtime(CUDA, guarded.runtime_capsule())
            calls.clear()
            yield calls
            settle()
            _exported.clear()
            devices._end_loans()
            assert not devices._loans and not devices._made
            devices._pools.clear()
            assert Event.alive == 0
    finally:
        _core.register_device_runtime(CUDA, None)
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
