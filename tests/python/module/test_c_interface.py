"""The C interface inside of the module: a table for extensions in whatever calls C."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32

import numpy as np

import dlbridge

c_void_p = ctypes.c_void_p
NAME = b"dlbridge._core.dlbridge_c_api"


class Head(Structure):
    _fields_ = (("struct_size", c_size_t), ("abi_version", c_uint32), ("reserved", c_uint32))


class Request(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("dtype", c_char_p),
        ("device", c_char_p),
        ("c_order", c_int32),
        ("writable", c_int32),
        ("warning", c_void_p),
    )


def table() -> int:
    """Where it lies, found as an extension finds it."""
    open_capsule = ctypes.pythonapi.PyCapsule_Import
    open_capsule.restype = c_void_p
    open_capsule.argtypes = (c_char_p, ctypes.c_int)
    return open_capsule(NAME, 0)


def function(name: str, result: type, *arguments: type):
    """The function of that name: the table has them in the order of the header."""
    errors = ("status", "message", "reason_count", "reason", "fix", "free", "make")
    names = [f"error_{word}" for word in errors]
    names += ["to_managed", "convert", "own", "allocate", "share"]
    place = table() + ctypes.sizeof(Head) + ctypes.sizeof(c_void_p) * names.index(name)
    return ctypes.CFUNCTYPE(result, *arguments)(c_void_p.from_address(place).value)


def pointer_in(capsule: object) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype = c_void_p
    get.argtypes = (ctypes.py_object, c_char_p)
    return get(capsule, b"dltensor_versioned")


def test_the_table_is_that_of_the_header() -> None:
    head = Head.from_address(table())
    assert head.abi_version >> 16 == 1
    assert head.struct_size >= ctypes.sizeof(Head) + 28 * ctypes.sizeof(c_void_p)


def test_an_extension_allocates_a_tensor_that_python_takes() -> None:
    allocate = function(
        "allocate", c_int32, c_char_p, c_int32, POINTER(c_int64), POINTER(c_void_p), c_void_p
    )
    out = c_void_p()
    assert allocate(b"float32", 2, (c_int64 * 2)(2, 3), byref(out), None) == 0
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (c_void_p, c_char_p, c_void_p)
    array = dlbridge.to_numpy(new(out, b"dltensor_versioned", None))
    array[...] = 7
    assert array.shape == (2, 3)
    assert array.dtype == np.float32


def test_an_extension_is_refused_in_words_of_its_own() -> None:
    convert = function(
        "convert", c_int32, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(Request),
        POINTER(c_void_p), POINTER(c_void_p),
    )  # fmt: skip
    message = function("error_message", c_char_p, c_void_p)
    free = function("error_free", None, c_void_p)
    capsule = dlbridge.capsule(np.array([1, 300]))
    shared = c_void_p()
    share = function("share", c_int32, c_void_p, POINTER(c_void_p), c_void_p)
    assert share(pointer_in(capsule), byref(shared), None) == 0
    out, error = c_void_p(), c_void_p()
    request = Request(struct_size=ctypes.sizeof(Request), dtype=b"int8")
    assert convert(shared, None, None, None, byref(request), byref(out), byref(error)) == 1
    assert out.value is None
    assert b'dlbridge_request{.dtype = "int16"}' in message(error)
    free(error)
