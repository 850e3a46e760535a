"""Rules 1 to 14: producers."""

from __future__ import annotations

import ctypes
import functools
import gc
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dlbridge.testing._rules import Kind, NotApplicable, enter, given, refusal, require
from dlbridge.testing._structures import (
    IS_COPIED,
    LEGACY,
    PADDED,
    VERSIONED,
    CountedDeleter,
    call_deleter,
    capsule_name,
    managed_in,
    mark_used,
)

rule = functools.partial(enter, "producer")

HOST_TYPES = (1, 3, 11, 13)  # host, pinned and managed memory: device_id 0


@dataclass(frozen=True, kw_only=True)
class Producer:
    """Something that exports tensors.

    ``make()`` gives a fresh plain tensor of one dimension or more, on the host, with elements. The
    others are optional; a rule that needs what is missing is not applicable: ``address(x)`` is
    where its memory is, and ``empty()``, ``swapped()`` (the other byte order), ``float4()`` (a
    packed tensor), ``inexpressible()`` (a type that DLPack lacks) make tensors of those kinds.
    ``live()`` counts the exports that are alive, for who does not release by the struct's deleter.
    """

    make: Callable[[], Any]
    address: Callable[[Any], int] | None = None
    empty: Callable[[], Any] | None = None
    swapped: Callable[[], Any] | None = None
    float4: Callable[[], Any] | None = None
    inexpressible: Callable[[], Any] | None = None
    live: Callable[[], int] | None = None
    kind: ClassVar[Kind] = "producer"


class _Export:
    """A capsule, its managed tensor, and the count of its deleter."""

    def __init__(self, x: Any, **keywords: Any) -> None:
        self.capsule = x.__dlpack__(**keywords)
        self.name = capsule_name(self.capsule)
        require(
            self.name in (LEGACY, VERSIONED),
            f"__dlpack__ gave {type(self.capsule).__name__} {self.name.decode()!r}, and a capsule "
            'called "dltensor" or "dltensor_versioned" was expected',
        )
        self.managed = managed_in(self.capsule)
        self.counted = CountedDeleter(self.managed)
        self.tensor = self.managed.dl_tensor

    @property
    def versioned(self) -> bool:
        return self.name == VERSIONED

    @property
    def address(self) -> int:
        return (self.tensor.data or 0) + int(self.tensor.byte_offset)

    def drop(self) -> None:
        self.capsule = None
        gc.collect()


def _versioned(x: Any, **keywords: Any) -> _Export:
    """The newest capsule that the producer has."""
    try:
        return _Export(x, max_version=(1, 3), **keywords)
    except TypeError:
        return _Export(x, **keywords)


@rule(
    1,
    "The capsule is called dltensor or dltensor_versioned; its destructor calls the deleter, but "
    "only of a capsule that nobody consumed.",
)
def capsule_lifetime(subject: Producer) -> None:
    for keywords in ({}, {"max_version": (1, 3)}):
        try:
            unconsumed = _Export(subject.make(), **keywords)
        except (BufferError, TypeError):
            continue
        alive = 0 if subject.live is None else subject.live()
        unconsumed.drop()
        if unconsumed.counted.calls == 0:
            # A destructor may release its tensor without asking the struct for its deleter.
            live = given(subject.live, "live(), and its capsule does not call the struct's deleter")
            require(live() < alive, "an unconsumed capsule kept its tensor when it died")
            continue
        require(
            unconsumed.counted.calls == 1,
            f"an unconsumed {unconsumed.name.decode()} capsule called the deleter "
            f"{unconsumed.counted.calls} times when it died",
        )
        consumed = _Export(subject.make(), **keywords)
        mark_used(consumed.capsule)
        managed = consumed.managed
        consumed.drop()
        calls = consumed.counted.calls
        require(calls == 0, "a consumed capsule called the deleter when it died")
        call_deleter(managed)


@rule(2, "Without max_version the capsule is a legacy one, or BufferError is raised.")
def legacy_without_max_version(subject: Producer) -> None:
    try:
        export = _Export(subject.make())
    except BufferError:
        return
    require(not export.versioned, "without max_version it gave a versioned capsule")


@rule(
    3,
    "max_version of the same major gives the producer's newest; what it cannot satisfy gives a "
    "legacy capsule or BufferError.",
    must=False,
)
def newest_of_the_major_version(subject: Producer) -> None:
    found = []
    for asked in ((1, 0), (1, 3), (1, 99)):
        export = _Export(subject.make(), max_version=asked)
        require(export.versioned, f"max_version={asked} gave a legacy capsule")
        version = export.managed.version
        require(version.major == 1, f"max_version={asked} gave version {version.major}")
        found.append((version.major, version.minor))
    require(len(set(found)) == 1, f"the version depends on the minor that was asked for: {found}")
    try:
        old = _Export(subject.make(), max_version=(0, 8))
    except BufferError:
        return
    require(not old.versioned, "max_version=(0, 8) gave a versioned capsule")


@rule(4, "strides is not NULL for a tensor with dimensions (1.2).")
def strides_are_filled(subject: Producer) -> None:
    export = _versioned(subject.make())
    if export.tensor.ndim == 0:
        raise NotApplicable("the tensor has no dimensions")
    require(export.tensor.strides, "strides is NULL")


@rule(5, "A tensor without elements has data NULL.")
def empty_is_null(subject: Producer) -> None:
    export = _versioned(given(subject.empty, "empty()")())
    shape = list(export.tensor.shape[: export.tensor.ndim])
    require(math.prod(shape) == 0, f"the empty tensor has the shape {shape}")
    require(not export.tensor.data, "data of an empty tensor is an address")


@rule(6, "The other byte order is refused with a clear error, for DLPack cannot say it.")
def native_byte_order(subject: Producer) -> None:
    x = given(subject.swapped, "swapped()")()
    kinds = (BufferError, ValueError, TypeError)
    with refusal(*kinds, accepted="it exported a tensor in the other byte order"):
        _versioned(x)


@rule(7, "float4 and float6 have their own bits, and are packed unless flagged as padded.")
def packed_float4(subject: Producer) -> None:
    export = _versioned(given(subject.float4, "float4()")())
    dtype = export.tensor.dtype
    require(dtype.code == 17, f"the type code of float4 is {dtype.code}")
    require(dtype.bits == 4, f"float4 has {dtype.bits} bits")
    padded = export.versioned and export.managed.flags & PADDED
    require(not (padded and dtype.lanes > 1), "packed pairs are flagged as padded")


@rule(8, "copy=True always copies and sets IS_COPIED; copy=False never copies.")
def copy_keyword(subject: Producer) -> None:
    x = subject.make()
    plain = _versioned(x)
    try:
        copy = _versioned(x, copy=True)
    except BufferError:
        copy = None
    if copy is not None:
        require(copy.address != plain.address, "copy=True gave the same memory")
        if copy.versioned:
            require(copy.managed.flags & IS_COPIED, "copy=True did not set IS_COPIED")
    try:
        view = _versioned(x, copy=False)
    except BufferError:
        return
    require(view.address == plain.address, "copy=False gave other memory")


@rule(
    9,
    "A dl_device that it cannot export to gives BufferError; a tensor of the host knows the host.",
)
def unknown_device(subject: Producer) -> None:
    x = subject.make()
    if x.__dlpack_device__()[0] == 1:
        _versioned(x, dl_device=(1, 0))
    with refusal(
        BufferError,
        other="dl_device=(7, 0), Vulkan, gave {0} and not BufferError",
        accepted="dl_device=(7, 0), Vulkan, was ignored",
    ):
        _versioned(x, dl_device=(7, 0))


@rule(10, "A tensor on the host takes stream=None only.")
def stream_of_the_host(subject: Producer) -> None:
    x = subject.make()
    if x.__dlpack_device__()[0] != 1:
        raise NotApplicable("the tensor is not on the host")
    _versioned(x, stream=None)
    with refusal(Exception, accepted="stream=2 was accepted for a tensor on the host"):
        _versioned(x, stream=2)


@rule(11, "The deleter may be called on any thread, without the GIL, after the exporter has died.")
def deleter_anywhere(subject: Producer) -> None:
    x = subject.make()
    export = _versioned(x)
    mark_used(export.capsule)
    managed = export.managed
    before = bytes(_elements(export))
    del x
    export.drop()
    require(bytes(_elements(export)) == before, "the memory changed when the exporter died")
    thread = threading.Thread(target=call_deleter, args=(managed,))
    thread.start()
    thread.join(30)
    require(not thread.is_alive(), "the deleter did not return within 30 s on another thread")
    require(export.counted.calls == 1, "the deleter did not run")


@rule(12, "The export is the memory itself, wherever possible.")
def zero_copy(subject: Producer) -> None:
    x = subject.make()
    first, second = _versioned(x), _versioned(x)
    require(first.address == second.address, "two exports of one tensor have other addresses")
    if subject.address is not None:
        where = subject.address(x)
        require(first.address == where, "the export is not at the tensor's own address")


@rule(13, "What DLPack cannot express gives BufferError.", must=False)
def buffer_error(subject: Producer) -> None:
    x = given(subject.inexpressible, "inexpressible()")()
    with refusal(
        BufferError,
        other="it gave {0} ({1}) and not BufferError",
        accepted="it exported what DLPack cannot express",
    ):
        _versioned(x)


@rule(
    14,
    "__dlpack_device__ is a pair of ints and agrees with the capsule; host, pinned and managed "
    "memory has device_id 0.",
)
def device_of_the_host(subject: Producer) -> None:
    x = subject.make()
    declared = x.__dlpack_device__()
    require(
        len(declared) == 2 and all(isinstance(part, int) for part in declared),
        f"__dlpack_device__ gave {declared!r}, which is no pair of ints",
    )
    export = _versioned(x)
    device = export.tensor.device
    found = (device.device_type, device.device_id)
    require(
        tuple(declared) == found, f"it declares {tuple(declared)}, and the capsule says {found}"
    )
    if found[0] in HOST_TYPES:
        require(found[1] == 0, f"memory of the host has device_id {found[1]}")


def _elements(export: _Export) -> Any:
    """The elements of a compact tensor on the host; none of another."""
    tensor = export.tensor
    if tensor.device.device_type != 1:
        return b""
    count = math.prod(tensor.shape[: tensor.ndim])
    size = count * tensor.dtype.bits * tensor.dtype.lanes // 8
    return (ctypes.c_uint8 * size).from_address(export.address)
