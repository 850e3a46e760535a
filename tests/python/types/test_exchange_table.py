"""The exchange table that ManagedTensor publishes, called slot by slot from C++."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
from dlb_support import HOST, READ_ONLY, make_f32, settle

import dlbridge


def table() -> probe.Table:
    return probe.Table(dlbridge.ManagedTensor.__dlpack_c_exchange_api__)


def succeeded(answer: dict) -> dict:
    assert answer["rc"] == 0 and answer["error"] is None
    return answer


def failed(answer: dict) -> BaseException:
    assert answer["rc"] == -1 and answer["error"] is not None
    return answer["error"]


def test_the_table_is_on_the_type_and_complete() -> None:
    capsule = dlbridge.ManagedTensor.__dlpack_c_exchange_api__
    assert probe.name(capsule) == "dlpack_exchange_api"
    info = table().info()
    assert info["version"] == (1, 3) and not info["has_prev"]
    for slot in ("allocator", "from_py_object", "to_py_object", "borrow", "stream"):
        assert info[slot], slot


def test_from_py_object_gives_an_owning_tensor() -> None:
    capsule, token = make_f32(shape=(2, 3), flags=READ_ONLY)
    tensor = dlbridge.from_dlpack(capsule)
    held = succeeded(table().from_py_object(tensor))["held"]
    fields = held.fields()
    assert fields["version"] == (1, 3) and fields["flags"] == READ_ONLY
    assert fields["shape"] == (2, 3) and fields["strides"] == (3, 1)
    assert fields["data"] + fields["byte_offset"] == tensor.data_ptr
    del tensor, capsule
    settle()
    assert probe.deletes(token) == 0
    held.release()
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("thing", [None, 5, np.zeros(3), "x", dlbridge.ManagedTensor])
def test_from_py_object_refuses_other_types(thing: object) -> None:
    answer = table().from_py_object(thing)
    assert type(failed(answer)) is TypeError
    assert answer["held"] is None


def test_borrowing_gives_the_tensor_without_owning_it() -> None:
    array = np.arange(6.0).reshape(2, 3)
    tensor = dlbridge.from_dlpack(array)
    fields = succeeded(table().borrow(tensor))["fields"]
    assert fields["shape"] == (2, 3) and fields["strides"] == (3, 1)
    assert fields["dtype"] == (2, 64, 1) and fields["device"] == HOST
    assert fields["data"] + fields["byte_offset"] == tensor.data_ptr


def test_a_read_only_tensor_is_not_lent_where_no_flag_can_say_so() -> None:
    # DLTensor has no flags: lending read-only memory would declare it writable (law 2).
    tensor = dlbridge.from_dlpack(make_f32(flags=READ_ONLY)[0])
    assert isinstance(failed(table().borrow(tensor)), BufferError)


def test_borrowing_from_another_type_is_a_type_error() -> None:
    assert type(failed(table().borrow(np.zeros(3)))) is TypeError


def test_to_py_object_steals_its_tensor() -> None:
    capsule, token = make_f32(shape=(2, 3), flags=READ_ONLY)
    tensor = succeeded(table().to_py_object(capsule))["object"]
    assert type(tensor) is dlbridge.ManagedTensor
    assert tensor.shape == (2, 3) and tensor.readonly
    del capsule
    settle()
    assert probe.deletes(token) == 0
    del tensor
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"version": (2, 0)},
        {"ndim": -1},
        {"null_shape": True},
        {"null_data": True},
        {"shape": (1,) * 65},
        {"shape": (-1,)},
        {"shape": (2**40, 2**40)},
        {"dtype": (99, 8)},
        {"dtype": (2, 0)},
    ],
    ids=repr,
)
def test_to_py_object_leaves_a_refused_tensor_with_its_caller(changes: dict) -> None:
    capsule, token = make_f32(**changes)
    answer = table().to_py_object(capsule)
    assert isinstance(failed(answer), BufferError)
    assert answer["object"] is None
    assert probe.deletes(token) == 0
    del capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("device", [(1, 0), (3, 0), (1, 5)])
def test_the_current_stream_of_the_host_is_null(device: tuple[int, int]) -> None:
    assert succeeded(table().current_work_stream(*device))["stream"] == 0


def test_the_allocator_makes_writable_aligned_memory() -> None:
    held = succeeded(table().allocate([2, 3], code=2, bits=64))["held"]
    fields = held.fields()
    assert fields["shape"] == (2, 3) and fields["strides"] == (3, 1)
    assert fields["dtype"] == (2, 64, 1) and fields["device"] == HOST
    assert not fields["flags"] & READ_ONLY
    where = fields["data"] + fields["byte_offset"]
    assert where % 64 == 0
    probe.write(where, bytes(range(48)))
    assert probe.read(where, 48) == bytes(range(48))


@pytest.mark.parametrize("shape", [[], [0], [0, 3], [1] * 64])
def test_the_allocator_knows_the_odd_shapes(shape: list[int]) -> None:
    fields = succeeded(table().allocate(shape))["held"].fields()
    assert fields["shape"] == tuple(shape)
    assert (fields["data"] == 0) == (0 in shape)


def test_a_tensor_without_elements_has_no_address() -> None:
    tensor = dlbridge.from_dlpack(np.empty((0, 3)))
    assert succeeded(table().from_py_object(tensor))["held"].fields()["data"] == 0
    assert succeeded(table().borrow(tensor))["fields"]["data"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": [2], "code": 99},
        {"shape": [2], "bits": 0},
        {"shape": [-2]},
        {"shape": [2], "ndim": -1},
        {"shape": [1] * 65},
        {"shape": [2**40, 2**40]},
        {"shape": [2], "type": 8},
        {"shape": [2], "type": 99},
    ],
    ids=repr,
)
def test_the_allocator_reports_the_true_kind_of_error(arguments: dict) -> None:
    answer = table().allocate(**arguments)
    assert answer["rc"] == -1 and answer["held"] is None
    ((kind, message),) = answer["said"]  # SetError exactly once
    assert kind in ("BufferError", "ValueError", "ConversionRefused") and message
    assert answer["error"] is None  # SetError is the channel; nothing beside it


def test_the_allocator_reports_that_memory_is_short() -> None:
    answer = table().allocate([2**45], code=2, bits=64)  # more than the address space has
    assert answer["rc"] == -1
    assert [kind for kind, _ in answer["said"]] == ["MemoryError"]


def test_a_thousand_trips_through_the_table_leave_nothing() -> None:
    tensor = dlbridge.from_dlpack(np.arange(6.0))
    api = table()
    for _ in range(1000):
        succeeded(api.from_py_object(tensor))["held"].release()
        succeeded(api.allocate([4]))
        failed(api.from_py_object(3))
    assert tensor.shape == (6,)


def test_a_tensor_of_the_table_may_be_released_on_another_thread() -> None:
    array = np.arange(6.0)
    held = succeeded(table().from_py_object(dlbridge.from_dlpack(array)))["held"]
    held.release_on_thread()
    allocated = succeeded(table().allocate([4]))["held"]
    allocated.release_on_thread()
    settle()
    array.resize(12, refcheck=True)  # nothing refers to it any more
    assert array.shape == (12,)


def capsule_pointer(capsule: Any, name: bytes) -> int:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found = pointer_of(capsule, name)
    assert isinstance(found, int)
    return found


def test_an_allocation_fails_in_silence_where_nobody_wants_to_know_why() -> None:
    at = capsule_pointer(dlbridge.ManagedTensor.__dlpack_c_exchange_api__, b"dlpack_exchange_api")
    slot = ctypes.c_void_p.from_address(at + 16).value  # the first, behind version and prev_api
    assert slot is not None
    pointer = ctypes.c_void_p
    allocate = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, pointer, pointer)(slot)
    out = pointer()
    assert allocate(None, ctypes.byref(out), None, None) == -1


def test_a_device_runtime_of_another_release_is_not_taken() -> None:
    struct_of_another = ctypes.create_string_buffer(struct.pack("@iP", 999, 0))
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    name = b"dlbridge.device_runtime"
    capsule = make(ctypes.addressof(struct_of_another), name, None)
    with pytest.raises(ImportError, match="another release"):
        dlbridge._core.register_device_runtime(15, capsule)
