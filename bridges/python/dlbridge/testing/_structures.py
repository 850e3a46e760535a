"""DLPack's C structures, and Python's capsules, by ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

READ_ONLY, IS_COPIED, PADDED = 1, 2, 4
LEGACY, VERSIONED = b"dltensor", b"dltensor_versioned"
TABLE = b"dlpack_exchange_api"


class DLDevice(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_OWNER = (("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class DLManagedTensor(ctypes.Structure):
    _fields_ = (("dl_tensor", DLTensor), *_OWNER)


class DLPackVersion(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint32), ("minor", ctypes.c_uint32))


class DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = (
        ("version", DLPackVersion),
        *_OWNER,
        ("flags", ctypes.c_uint64),
        ("dl_tensor", DLTensor),
    )


class DLPackExchangeAPI(ctypes.Structure):
    _fields_ = (
        ("version", DLPackVersion),
        ("prev_api", ctypes.c_void_p),
        ("managed_tensor_allocator", ctypes.c_void_p),
        ("managed_tensor_from_py_object_no_sync", ctypes.c_void_p),
        ("managed_tensor_to_py_object_no_sync", ctypes.c_void_p),
        ("dltensor_from_py_object_no_sync", ctypes.c_void_p),
        ("current_work_stream", ctypes.c_void_p),
    )


# A deleter's type, and that of a capsule's destructor. Called without the GIL; as a callback it
# takes it.
Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ctypes.PyDLL(None), name)  # a handle of its own: nobody else's types change
    function.restype = result
    function.argtypes = arguments
    return function


# By address: while a capsule dies, nothing may take a reference to it.
capsule_is_valid = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
capsule_pointer = _function(
    "PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
)
new_capsule = _function(
    "PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)
_get_name = _function("PyCapsule_GetName", ctypes.c_char_p, ctypes.py_object)
_set_name = _function("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)

_USED = {name: ctypes.c_char_p(b"used_" + name) for name in (LEGACY, VERSIONED)}


def capsule_name(capsule: Any) -> bytes:
    """The capsule's name; empty for what is no capsule, or has none."""
    try:
        return bytes(_get_name(capsule) or b"")
    except ValueError:
        return b""


def mark_used(capsule: Any) -> None:
    """Renames the capsule as a consumer does. The name has to live as long as the capsule."""
    _set_name(capsule, _USED[capsule_name(capsule)])


def managed_in(capsule: Any) -> Any:
    """The managed tensor in a capsule, legacy or versioned, as a ctypes structure."""
    name = capsule_name(capsule)
    kind: Any = DLManagedTensorVersioned if name == VERSIONED else DLManagedTensor
    return kind.from_address(capsule_pointer(id(capsule), name))


def call_deleter(managed: Any, kind: Any = Deleter, address_of: Any = ctypes.addressof) -> None:
    """Calls the deleter of a managed tensor, without the GIL, as a consumer's thread may."""
    if managed.deleter:
        kind(managed.deleter)(address_of(managed))


class CountedDeleter:
    """Stands before a foreign managed tensor's deleter and counts its calls."""

    def __init__(self, managed: Any) -> None:
        self.calls = 0
        self._original = managed.deleter

        def run(address: int) -> None:
            self.calls += 1
            if self._original and self.calls == 1:
                Deleter(self._original)(address)

        self._callback = Deleter(run)
        managed.deleter = ctypes.cast(self._callback, ctypes.c_void_p).value
