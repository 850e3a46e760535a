"""Memory of CUDA devices for other processes: in pools of cuda.core's, ordered by events.

Whoever receives it maps it. A pipe tells when the last of them has let go of it, since its other
end goes along: CUDA wants memory freed there before it is freed here.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from dlbridge import _core
from dlbridge._core import ManagedTensor
from dlbridge._errors import ConversionRefused, refused
from dlbridge.processes.notes import read, written

CUDA = 2  # DLPack's number

_lock = threading.RLock()  # a deallocator may come in the middle of what holds it


def _cuda() -> Any:
    """cuda.core, from its release 1.0 on; an ImportError without it."""
    import cuda.core

    if not hasattr(cuda.core.DeviceMemoryResource, "allocation_handle"):
        raise ImportError("memory of devices goes to other processes by cuda.core from 1.0 on")
    return cuda.core


@contextmanager
def _on(device: int) -> Iterator[Any]:
    """With the device current: the stream that memory of managed tensors there is ordered on."""
    cuda = _cuda()
    before = cuda.Device()
    cuda.Device(device).set_current()
    try:
        yield cuda.Stream.from_handle(_core.managed_stream(CUDA, device))
    finally:
        before.set_current()


class _Memory:
    """Of a pool, made here or mapped; freed in order when no tensor here has it any more."""

    def __init__(self, device: int, buffer: Any, readers: _Descriptor | None = None) -> None:
        self.device = device
        self.buffer = buffer
        self.first = int(buffer.handle)
        self._readers = readers
        self._process = os.getpid()

    def __del__(self) -> None:
        if self._process != os.getpid():
            _of_parent.append(self.buffer)  # its own end calls CUDA, which a child must not
            return
        if sys.is_finalizing():
            return  # CUDA ends by itself
        with _lock, _on(self.device) as stream:
            self.buffer.close()
            if self._readers is not None:
                stream.sync()  # only then may the process that it is from be told


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Pool:
    def __init__(self, device: int) -> None:
        cuda = _cuda()
        self.token = os.urandom(16)  # by which who maps it knows it again
        with _on(device):
            options = cuda.DeviceMemoryResourceOptions(ipc_enabled=True)
            self.resource = cuda.DeviceMemoryResource(device, options)


class _Loan(NamedTuple):
    """What went to another process in one message, which needs the memory and the events here."""

    readers: _Descriptor
    mode: str
    memory: list[_Memory]
    events: list[Any]


_pools: dict[int, _Pool] = {}
_made: WeakSet[_Memory] = WeakSet()
_loans: list[_Loan] = []
_of_parent: list[Any] = []
_mapped: WeakValueDictionary[bytes, Any] = WeakValueDictionary()


def _end_loans() -> None:
    poll = select.poll()
    for loan in _loans:
        poll.register(loan.readers.number, 0)
    ended = {number for number, _ in poll.poll(0)}
    _loans[:] = [loan for loan in _loans if loan.readers.number not in ended]


def _memory_at(first: int, end: int) -> _Memory | None:
    """What is empty may lie where one ends and the next begins: it is the next one's."""
    around = [
        each for each in list(_made) if each.first <= first and end <= each.first + each.buffer.size
    ]
    return max(around, key=lambda each: each.first, default=None)


def _can_lend(memory: _Memory, mode: str) -> bool:
    """What one process was promised holds for the next."""
    promised = {loan.mode for loan in _loans if memory in loan.memory}
    return not promised or (promised == {mode} and mode != "give")


def stays(first: int, end: int, mode: str, asked: bool) -> bool | None:
    """Whether memory of a device can be shared there as it is. None where it goes to the host.

    It stays where it is in a pool already, or where the policy refuses to take it elsewhere.
    """
    with _lock:
        memory = _memory_at(first, end)
        if memory is not None:
            _end_loans()
            return _can_lend(memory, mode)
    with suppress(ImportError):
        return False if asked and _cuda() else None
    return None


def empty(dtype: tuple[int, int, int], shape: tuple[int, ...], device: int) -> ManagedTensor:
    """New memory in the device's pool, in C order."""
    _, bits, lanes = dtype
    size = max(1, (math.prod(shape) * bits * lanes + 7) // 8)
    with _lock:
        _end_loans()  # whose memory it may be
        if device not in _pools:
            _pools[device] = _Pool(device)
        with _on(device) as stream:
            memory = _Memory(device, _pools[device].resource.allocate(size, stream=stream))
        _made.add(memory)
    return _over(memory, dtype, shape, (), 0, False)


def _over(
    memory: _Memory,
    dtype: tuple[int, int, int],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    read_only: bool,
) -> ManagedTensor:
    place = (CUDA, memory.device)
    size = memory.buffer.size
    return _core.tensor_over(
        memory, memory.first, size, place, dtype, shape, strides, offset, read_only
    )


def _wait_for_torch(device: int, stream: Any) -> None:
    """Whoever took a tensor of the pool's may have written to it on a stream of its own since."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        theirs = torch.cuda.current_stream(device).cuda_stream
        stream.wait(_cuda().Stream.from_handle(theirs))


def lent(
    tensors: list[ManagedTensor], mode: str, note: bytes
) -> tuple[list[ManagedTensor], bytes, list[int]]:
    """What a message has in their place: the tensors of the host, a note, and its descriptors."""
    here: list[ManagedTensor] = []
    lines: list[Any] = []
    memories: list[_Memory] = []
    with _lock:
        _end_loans()
        for place, tensor in enumerate(tensors):
            if tensor.device.type != CUDA:
                here.append(tensor)
                continue
            memory = _memory_at(tensor.data_ptr, tensor.data_ptr + min(tensor.nbytes, 1))
            if memory is None or not _can_lend(memory, mode):
                raise refused(
                    "cannot send memory of a device as it is",
                    "it is another process's, or whoever has it now was promised something else",
                    "dlbridge.share(x.tree), under the same policy, to copy it",
                )
            if memory not in memories:
                memories.append(memory)
            offset = tensor.data_ptr - memory.first
            kind = tuple(tensor.dtype), tensor.shape, tensor.strides
            lines.append((place, memories.index(memory), offset, *kind))
        devices = sorted({memory.device for memory in memories})
        events = []
        for device in devices:
            with _on(device) as stream:
                _wait_for_torch(device, stream)
                events.append(stream.record(options=_cuda().EventOptions(ipc_enabled=True)))
        pools = [
            (_pools[device].token, _cuda().Device(device).uuid, pickle.dumps(event.ipc_descriptor))
            for device, event in zip(devices, events, strict=True)
        ]
        blocks = [
            (devices.index(memory.device), pickle.dumps(memory.buffer.ipc_descriptor))
            for memory in memories
        ]
        readers, reader = os.pipe2(os.O_CLOEXEC)
        _loans.append(_Loan(_Descriptor(readers), mode, memories, events))
        descriptors = [reader]
        try:
            for device in devices:
                descriptors.append(os.dup(int(_pools[device].resource.allocation_handle)))
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
    return here, written((pools, blocks, lines, note), []), descriptors


class _Reader(pickle.Unpickler):
    """Of cuda.core's descriptors, by what it pickles them with itself, and of nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        known = "IPCBufferDescriptor._init", "IPCEventDescriptor._init"
        if module.startswith("cuda.core.") and name in known:
            return super().find_class(module, name)
        raise pickle.UnpicklingError("the tree that was sent is damaged")


def _descriptor(sent: bytes) -> Any:
    return _Reader(io.BytesIO(sent)).load()


def received(
    tensors: list[ManagedTensor], mode: str, note: bytes, descriptors: list[int]
) -> tuple[list[ManagedTensor], bytes]:
    """The tensors that ``lent`` was given, and the note."""
    owned = [_Descriptor(number) for number in descriptors]
    try:
        cuda = _cuda()
    except ImportError as error:
        raise refused(_CANNOT, str(error), "pip install 'cuda-core[cu13]'") from error
    try:
        pools, blocks, lines, note = read(note, [])
        if not isinstance(note, bytes):
            raise TypeError(f"the tree's note is a {type(note).__name__}")
        _map_into(cuda, tensors, mode, pools, blocks, lines, owned)
    except (ConversionRefused, MemoryError, pickle.UnpicklingError):
        raise
    except Exception as error:  # whatever a note that lies makes the driver, or Python, say
        raise pickle.UnpicklingError(
            f"the tree that was sent is damaged, or its memory cannot be mapped here: {error}"
        ) from error
    return tensors, note


_CANNOT = "cannot take memory of a device in"


def _at(number: Any, count: int) -> Any:
    """Python counts negative numbers from the end."""
    if number not in range(count):
        raise IndexError(f"no place {number} of {count}")
    return number


def _map_into(
    cuda: Any,
    tensors: list[ManagedTensor],
    mode: str,
    pools: Any,
    blocks: Any,
    lines: Any,
    owned: list[_Descriptor],
) -> None:
    there = {each.uuid: each.device_id for each in cuda.Device.get_all_devices()}
    mapped: list[tuple[int, Any]] = []
    memories: list[_Memory] = []
    with _lock:
        for (token, uuid, event), pool in zip(pools, owned[1:], strict=True):
            if uuid not in there:
                raise refused(_CANNOT, "this process does not see the device that it is on")
            with _on(there[uuid]) as stream:
                resource = _mapped.get(token)
                if resource is None:
                    map_pool = cuda.DeviceMemoryResource.from_allocation_handle
                    resource = _mapped[token] = map_pool(there[uuid], pool.number)
                stream.wait(cuda.Event.from_ipc_descriptor(_descriptor(event)))
            mapped.append((there[uuid], resource))
        for number, block in blocks:
            device, resource = mapped[_at(number, len(mapped))]
            with _on(device) as stream:
                block = _descriptor(block)
                buffer = cuda.Buffer.from_ipc_descriptor(resource, block, stream=stream)
            memories.append(_Memory(device, buffer, owned[0]))
    for place, number, offset, kind, shape, strides in lines:
        memory = memories[_at(number, len(memories))]
        made = _over(memory, kind, shape, strides, offset, mode == "read")
        tensors.insert(_at(place, len(tensors) + 1), made)
