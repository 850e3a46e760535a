"""Columns by the capsules of Arrow's C interface, made by hand."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class DeviceArray(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.c_void_p),
    ("release", RELEASE),
    ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", RELEASE),
    ("private_data", ctypes.c_void_p),
]
DeviceArray._fields_ = [
    ("array", Array),
    ("device_id", ctypes.c_int64),
    ("device_type", ctypes.c_int32),
    ("sync_event", ctypes.c_void_p),
    ("reserved", ctypes.c_int64 * 3),
]
Stream._fields_ = [
    ("get_schema", NEXT),
    ("get_next", NEXT),
    ("get_last_error", LAST_ERROR),
    ("release", RELEASE),
    ("private_data", ctypes.c_void_p),
]

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Column:
    """A column over arrays, a chunk each, that counts its releases. Lives as long as its test."""

    def __init__(
        self,
        kind: bytes,
        *chunks: np.ndarray,
        nulls: int = 0,
        marks: np.ndarray | None = None,
    ) -> None:
        self.kind = kind
        self.chunks = chunks
        self.nulls = nulls
        self.marks = marks  # a bit for each element that is no null
        self.released: list[str] = []
        self.kept: list[Any] = []

    def keep(self, x: Any) -> Any:
        self.kept.append(x)
        return x

    def ender(self, name: str, structure: type[ctypes.Structure]) -> Any:
        def end(address: int) -> None:
            self.released.append(name)
            ctypes.cast(address, ctypes.POINTER(structure))[0].release = RELEASE()

        return self.keep(RELEASE(end))

    def schema(self) -> Schema:
        return self.keep(Schema(format=self.kind, name=b"", release=self.ender("schema", Schema)))

    def array(self, chunk: np.ndarray) -> Array:
        buffers = self.keep(
            (ctypes.c_void_p * 2)(
                None if self.marks is None else self.marks.ctypes.data, chunk.ctypes.data
            )
        )
        return self.keep(
            Array(
                length=len(chunk),
                null_count=self.nulls,
                n_buffers=2,
                buffers=buffers,
                release=self.ender("array", Array),
            )
        )

    def capsule(self, structure: ctypes.Structure, name: bytes) -> Any:
        return new_capsule(ctypes.addressof(structure), self.keep(name), None)


class Whole(Column):
    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        return (
            self.capsule(self.schema(), b"arrow_schema"),
            self.capsule(self.array(self.chunks[0]), b"arrow_array"),
        )


class Located(Column):
    device = (1, 0)
    under_way = 0

    def __arrow_c_device_array__(
        self, requested_schema: Any = None, **later: Any
    ) -> tuple[Any, Any]:
        kind, number = self.device
        located = DeviceArray(
            array=self.array(self.chunks[0]),
            device_id=number,
            device_type=kind,
            sync_event=self.under_way or None,
        )
        return (
            self.capsule(self.schema(), b"arrow_schema"),
            self.capsule(self.keep(located), b"arrow_device_array"),
        )


class Chunked(Column):
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        rest = iter(self.chunks)

        def get_schema(_: int, out: int) -> int:
            ctypes.memmove(out, ctypes.addressof(self.schema()), ctypes.sizeof(Schema))
            return 0

        def get_next(_: int, out: int) -> int:
            chunk = next(rest, None)
            made = Array() if chunk is None else self.array(chunk)
            ctypes.memmove(out, ctypes.addressof(made), ctypes.sizeof(Array))
            return 0

        stream = Stream(
            get_schema=self.keep(NEXT(get_schema)),
            get_next=self.keep(NEXT(get_next)),
            get_last_error=self.keep(LAST_ERROR(lambda _: None)),
            release=self.ender("stream", Stream),
        )
        return self.capsule(self.keep(stream), b"arrow_array_stream")
