"""Tensors made by hand: any capsule that DLPack allows, and many that it does not."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlbridge import counting_deleters
from dlbridge.testing._structures import (
    LEGACY,
    VERSIONED,
    Deleter,
    DLManagedTensor,
    DLManagedTensorVersioned,
    call_deleter,
    capsule_is_valid,
    capsule_pointer,
    new_capsule,
)

_DELETERS = counting_deleters()

FLOAT32 = (2, 32, 1)
FLOAT4 = (17, 4, 1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a hand-made tensor is. The elements 0, 1, 2, ... of float32 unless ``data`` says.

    ``strides`` None leaves the pointer NULL; ``deleter`` False too. ``lead`` bytes lie before the
    elements, and ``byte_offset`` says so. ``answers`` False makes it ignore ``max_version``:
    ``versioned`` alone decides.
    """

    shape: tuple[int, ...] = (6,)
    strides: tuple[int, ...] | None = (1,)
    dtype: tuple[int, int, int] = FLOAT32
    data: bytes | None = None
    lead: int = 0
    device: tuple[int, int] = (1, 0)
    version: tuple[int, int] = (1, 3)
    flags: int = 0
    versioned: bool = True
    answers: bool = True
    deleter: bool = True
    null_data: bool = False

    def bytes(self) -> bytes:
        return floats(range(math.prod(self.shape))) if self.data is None else self.data


class HandMade:
    """A producer of one hand-made tensor; it notes how it was called and what became of it.

    ``calls`` are the keywords of each ``__dlpack__``, ``capsules`` what it handed out, ``made`` how
    many managed tensors it made and ``deleted`` how often their deleters were called.
    """

    def __init__(self, recipe: Recipe | None = None, **fields: Any) -> None:
        self.recipe = replace(recipe or Recipe(), **fields)
        self.calls: list[dict[str, Any]] = []
        self.capsules: list[Any] = []
        self._all: list[_Made] = []
        content = b"\xee" * self.recipe.lead + self.recipe.bytes()
        self._memory = (ctypes.c_uint8 * (len(content) + 128))()
        self._start = ctypes.addressof(self._memory) + -ctypes.addressof(self._memory) % 64
        ctypes.memmove(self._start, content, len(content))

    @property
    def address(self) -> int:
        """Of the first element."""
        return self._start + self.recipe.lead

    @property
    def made(self) -> int:
        return len(self._all)

    @property
    def deleted(self) -> int:
        return sum(made.deleted for made in self._all)

    def content(self) -> bytes:
        """The elements as they are now."""
        return ctypes.string_at(self.address, len(self.recipe.bytes()))

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.recipe.device

    def __dlpack__(self, **keywords: Any) -> Any:
        self.calls.append(keywords)
        asked = keywords.get("max_version")
        versioned = self.recipe.versioned
        if self.recipe.answers:
            versioned = versioned and asked is not None and asked[0] >= 1
        return self.capsule(versioned)

    def capsule(self, versioned: bool = True) -> Any:
        """A new capsule with a managed tensor of its own."""
        kind: Any = DLManagedTensorVersioned if versioned else DLManagedTensor
        managed = kind()
        recipe = self.recipe
        tensor = managed.dl_tensor
        tensor.data = None if recipe.null_data else self._start
        tensor.byte_offset = recipe.lead
        tensor.device.device_type, tensor.device.device_id = recipe.device
        tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes = recipe.dtype
        tensor.ndim = len(recipe.shape)
        tensor.shape = (ctypes.c_int64 * max(len(recipe.shape), 1))(*recipe.shape)
        if recipe.strides is not None and recipe.shape:
            tensor.strides = (ctypes.c_int64 * len(recipe.shape))(*recipe.strides)
        if versioned:
            managed.version.major, managed.version.minor = recipe.version
            managed.flags = recipe.flags
        made = _Made(managed, tensor.shape, tensor.strides, self._memory)
        managed.manager_ctx = ctypes.addressof(made.calls)
        if recipe.deleter:
            managed.deleter = _DELETERS[0 if versioned else 1]
        self._all.append(made)
        if len(_kept) >= 1000:
            _kept[:] = [each for each in _kept if not each.deleted]
        _kept.append(made)
        name = VERSIONED if versioned else LEGACY
        destructor = ctypes.cast(_destructor, ctypes.c_void_p).value
        capsule = new_capsule(ctypes.addressof(managed), name, destructor)
        self.capsules.append(capsule)
        return capsule

    def forget_capsules(self) -> None:
        """Lets go of what was handed out, as a caller would: unconsumed ones are destroyed."""
        self.capsules.clear()

    def release(self) -> None:
        """Calls the deleters that nobody has called: of tensors that are the caller's again."""
        for made in self._all:
            if not made.deleted:
                call_deleter(made.managed)


class _Made:
    """A managed tensor that was handed out, and what it points to."""

    def __init__(self, managed: Any, *held: Any) -> None:
        self.managed = managed
        self.calls = ctypes.c_uint64(0)
        self._held = held

    @property
    def deleted(self) -> int:
        """How often its deleter was called."""
        return self.calls.value


# A consumer may hold what it took for longer than the producer lives.
_kept: list[_Made] = []


def _destroy(
    capsule: int,
    kinds: Any = ((VERSIONED, DLManagedTensorVersioned), (LEGACY, DLManagedTensor)),
    is_valid: Any = capsule_is_valid,
    pointer: Any = capsule_pointer,
    delete: Any = call_deleter,
) -> None:
    # Capsules also die while the interpreter ends, and its modules are empty then.
    for name, kind in kinds:
        if is_valid(capsule, name):
            delete(kind.from_address(pointer(capsule, name)))


_destructor = Deleter(_destroy)


class SameCapsule(HandMade):
    """A producer that hands out one capsule again and again."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.capsules[0] if self.capsules else super().__dlpack__(**keywords)


class Raising:
    """A producer whose ``__dlpack__`` raises."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **keywords: Any) -> Any:
        raise self.error()


class WithoutMethods:
    """No producer at all."""


def floats(values: Sequence[float]) -> bytes:
    return bytes((ctypes.c_float * len(values))(*values))
