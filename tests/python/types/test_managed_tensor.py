"""from_dlpack and the class ManagedTensor: attributes, exports, buffer protocol, keywords."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import dlbridge_probe as probe
import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import (
    HOST,
    IS_COPIED,
    PADDED,
    READ_ONLY,
    Producer,
    address,
    make_f32,
    producer_f32,
    settle,
)

import dlbridge


def managed(**changes: Any) -> tuple[Any, int]:
    capsule, token = make_f32(**changes)
    return dlbridge.from_dlpack(capsule), token


def test_the_attributes_tell_the_tensor() -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)[:, ::2]
    tensor = dlbridge.from_dlpack(array)
    assert type(tensor) is dlbridge.ManagedTensor
    assert tensor.shape == (3, 2) and tensor.strides == (4, 2)
    assert type(tensor.shape) is tuple and type(tensor.strides) is tuple
    assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (2, 32, 1)
    assert str(tensor.dtype) == "float32"
    assert tensor.device == HOST and "cpu" in str(tensor.device).lower()
    assert tensor.readonly is False
    assert type(tensor.data_ptr) is int and tensor.data_ptr == address(array)


@pytest.mark.parametrize(
    "name", ["shape", "strides", "dtype", "device", "readonly", "data_ptr", "unheard_of"]
)
def test_the_attributes_cannot_be_set(name: str) -> None:
    tensor, _ = managed()
    with pytest.raises(AttributeError):
        setattr(tensor, name, 1)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("type_", [5, 6, 12, 16, 17, 18, 19, 20, 21, 22, 31, 32, 99, 2**31 - 1])
def test_a_device_passes_by_its_number(type_: int, versioned: bool) -> None:
    tensor, token = managed(device=(type_, 3), versioned=versioned, byte_offset=0)
    assert tensor.device == (type_, 3) and tensor.__dlpack_device__() == (type_, 3)
    assert str(tensor.device).endswith(":3")
    for again in (dlbridge.capsule(tensor), tensor.__dlpack__(max_version=(1, 3))):
        assert probe.fields(again)["device"] == (type_, 3)
    assert dlbridge.from_dlpack(tensor, device=(type_, 3)).data_ptr == tensor.data_ptr
    assert dlbridge.explain(tensor, "numpy").refused
    del tensor, again
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize(
    "type_, name", [(19, "tpu"), (20, "tpu_host"), (21, "ascend"), (22, "device(22)")]
)
def test_a_device_that_is_newer_than_dlpack_1_3_prints_well(type_: int, name: str) -> None:
    tensor, _ = managed(device=(type_, 1))
    assert str(tensor.device) == f"{name}:1"


@pytest.mark.parametrize("type_", [0, -1, -(2**31)])
def test_what_is_no_device_type_is_refused(type_: int) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match=f"device type is {type_}, and they"):
        managed(device=(type_, 0))


def test_data_ptr_has_the_byte_offset_applied() -> None:
    producer = producer_f32(10, shape=(6,), byte_offset=16)
    tensor = dlbridge.from_dlpack(producer)
    assert tensor.data_ptr == producer.source.address + 16
    assert dlbridge.to_numpy(tensor).tolist() == [4, 5, 6, 7, 8, 9]


def test_missing_strides_are_filled_in() -> None:
    tensor, _ = managed(shape=(1, 2, 3), versioned=False)
    assert tensor.strides[1:] == (3, 1)
    assert managed(shape=())[0].strides == ()


def test_its_text_says_what_it_is() -> None:
    text = repr(managed(shape=(2, 3))[0])
    assert "2, 3" in text and "float32" in text


def test_it_shows_itself_in_a_notebook() -> None:
    x = dlbridge.from_dlpack(np.zeros((2, 3), "f4").T)
    assert x._repr_html_() == (
        "<pre>dlbridge.ManagedTensor float32 (3, 2) on cpu: writable, 24 bytes\n"
        "  strides: (1, 3)</pre>"
    )
    assert "cpu: read-only" in dlbridge.from_dlpack(b"abc")._repr_html_()


def test_it_may_be_exported_many_times_and_is_released_once() -> None:
    tensor, token = managed()
    arrays = [np.from_dlpack(tensor) for _ in range(3)]
    capsules = [tensor.__dlpack__(max_version=(1, 0)) for _ in range(3)]
    views = [memoryview(tensor), dlbridge.to_numpy(tensor), torch.from_dlpack(tensor)]
    assert arrays[0].tolist() == [0, 1, 2, 3, 4, 5]
    views[0][1] = 9
    assert views[0][1] == views[1][1] == views[2][1] == arrays[2][1] == 9
    del tensor, arrays, capsules
    settle()
    assert probe.deletes(token) == 0
    assert views[1].tolist() == [0, 9, 2, 3, 4, 5]
    del views
    settle()
    assert probe.deletes(token) == 1


def test_shapes_of_exports_outlive_the_object() -> None:
    capsule = managed(shape=(2, 3))[0].__dlpack__(max_version=(1, 3))
    settle()
    fields = probe.fields(capsule)
    assert fields["shape"] == (2, 3) and fields["strides"] == (3, 1)


# --- __dlpack__ and its keywords --------------------------------------------------------------


@pytest.mark.parametrize(
    "version", [(1, 0), (1, 3), (1, 99), (2, 0), (99, 1), (2**32, 0), (1 << 99, 1)]
)
def test_a_version_of_1_or_later_gives_our_own_1_3(version: tuple[int, int]) -> None:
    capsule = managed()[0].__dlpack__(max_version=version)
    assert probe.name(capsule) == "dltensor_versioned"
    assert probe.fields(capsule)["version"] == (1, 3)


@pytest.mark.parametrize("keywords", [{}, {"max_version": None}, {"max_version": (0, 8)}])
def test_no_version_gives_a_legacy_capsule(keywords: dict[str, Any]) -> None:
    capsule = managed()[0].__dlpack__(**keywords)
    assert probe.name(capsule) == "dltensor"
    assert probe.fields(capsule)["strides"] == (1,)  # never NULL: some consumers crash


@pytest.mark.parametrize("versioned", [True, False])
def test_read_only_memory_does_not_leave_in_a_legacy_capsule(versioned: bool) -> None:
    tensor, _ = managed(versioned=versioned, flags=READ_ONLY)
    assert tensor.readonly
    for keywords in ({}, {"max_version": (0, 8)}, {"copy": False}):
        with pytest.raises(BufferError) as caught:
            tensor.__dlpack__(**keywords)
        assert isinstance(caught.value, dlbridge.ConversionRefused)
        assert str(caught.value.fix).startswith("max_version=(1, 3), or copy=True")
    copied = tensor.__dlpack__(copy=True)
    assert probe.fields(copied)["data"] != tensor.data_ptr
    assert probe.fields(tensor.__dlpack__(max_version=(1, 0)))["flags"] == READ_ONLY


def test_copy_true_copies_and_says_so() -> None:
    tensor, _ = managed(flags=READ_ONLY)
    capsule = tensor.__dlpack__(max_version=(1, 0), copy=True)
    fields = probe.fields(capsule)
    assert fields["flags"] & IS_COPIED and not fields["flags"] & READ_ONLY
    where = fields["data"] + fields["byte_offset"]
    assert where != tensor.data_ptr and where % 64 == 0
    assert probe.read(where, 24) == np.arange(6, dtype="f4").tobytes()


@pytest.mark.parametrize("copy", [None, False])
def test_no_copy_is_made_unasked(copy: bool | None) -> None:
    tensor, _ = managed()
    fields = probe.fields(tensor.__dlpack__(max_version=(1, 0), copy=copy))
    assert fields["data"] + fields["byte_offset"] == tensor.data_ptr
    assert fields["flags"] == 0


def test_the_device_may_be_named_when_it_is_the_tensors_own() -> None:
    tensor, _ = managed()
    assert tensor.__dlpack_device__() == HOST
    capsule = tensor.__dlpack__(dl_device=HOST, max_version=(1, 0), copy=None, stream=None)
    assert probe.fields(capsule)["device"] == HOST
    for device in ((8, 0), (14, 0), (77, 0)):
        with pytest.raises(BufferError):
            tensor.__dlpack__(dl_device=device, max_version=(1, 0))


@pytest.mark.parametrize(
    ("device", "stream"),
    [((2, 0), 0), ((2, 0), -2), ((10, 0), 1), ((10, 0), 2), ((10, 0), -2)],
)
def test_numbers_that_are_no_stream_of_the_device(device: Any, stream: int) -> None:
    with pytest.raises(ValueError, match=f"stream={stream} .DLPack gives that number no meaning"):
        managed(device=device)[0].__dlpack__(stream=stream, max_version=(1, 0))


@pytest.mark.parametrize("stream", [0, 1, 2, 12345, "x"])
def test_the_cpu_has_no_streams(stream: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        managed()[0].__dlpack__(stream=stream, max_version=(1, 0))


@pytest.mark.parametrize(
    "keywords",
    [
        {"max_version": "x"},
        {"max_version": 1},
        {"max_version": (1,)},
        {"max_version": ("1", "0")},
        {"dl_device": 5},
        {"dl_device": ("cpu", 0)},
        {"copy": "maybe"},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_bad_keywords_are_value_or_type_errors(keywords: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        managed()[0].__dlpack__(**keywords)
    with pytest.raises(TypeError):
        managed()[0].__dlpack__(1)  # keywords only


NUMPY_ASKS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # for versioned capsules


def test_consumers_of_every_habit_are_served() -> None:
    tensor, _ = managed()
    if NUMPY_ASKS:
        assert np.from_dlpack(tensor).flags.writeable
        assert np.from_dlpack(tensor, device="cpu", copy=True).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.from_dlpack(tensor).tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.from_dlpack(tensor).data_ptr() == tensor.data_ptr
    assert torch.utils.dlpack.from_dlpack(tensor.__dlpack__()).data_ptr() == tensor.data_ptr


# --- what it carries --------------------------------------------------------------------------

CARRIED = {
    "int8": (0, 8),
    "uint64": (1, 64),
    "float16": (2, 16),
    "opaque64": (3, 64),
    "bfloat16": (4, 16),
    "complex32": (5, 32),
    "complex64": (5, 64),
    "bool": (6, 8),
    "float8_e3m4": (7, 8),
    "float8_e4m3": (8, 8),
    "float8_e4m3b11fnuz": (9, 8),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
    "float6_e2m3fn": (15, 6),
    "float6_e3m2fn": (16, 6),
    "float4_e2m1fn": (17, 4),
    "float4_e2m1fn_x2": (17, 4, 2),
    "int4": (0, 4),
    "float32x4": (2, 32, 4),
}


@pytest.mark.parametrize("flags", [0, READ_ONLY])
@pytest.mark.parametrize("name", CARRIED)
def test_every_dtype_code_of_dlpack_is_carried(name: str, flags: int) -> None:
    dtype = (*CARRIED[name], 1)[:3]
    source = producer_f32(shape=(1,), dtype=dtype, flags=flags)
    tensor = dlbridge.from_dlpack(source)
    assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == dtype
    assert str(tensor.dtype) == name
    for capsule in (tensor.__dlpack__(max_version=(1, 3)), dlbridge.capsule(source)):
        fields = probe.fields(capsule)
        assert fields["dtype"] == dtype and fields["flags"] == flags
        assert fields["data"] + fields["byte_offset"] == source.source.address


def test_the_flag_of_padded_sub_bytes_is_kept() -> None:
    tensor, _ = managed(dtype=(17, 4), flags=PADDED)
    assert probe.fields(tensor.__dlpack__(max_version=(1, 3)))["flags"] == PADDED


def test_a_raw_capsule_of_padded_elements_is_refused_as_its_tensor_is() -> None:
    capsule, _ = make_f32(dtype=(17, 4), flags=PADDED)
    for keywords in ({}, {"copy": True}):
        assert dlbridge.explain(capsule, "torch", **keywords).refused
        with pytest.raises(dlbridge.ConversionRefused, match="padded"):
            dlbridge.to_torch(capsule, **keywords)


def test_64_dimensions_are_carried() -> None:
    tensor, _ = managed(shape=(1,) * 63 + (6,))
    assert len(tensor.shape) == 64
    assert probe.fields(tensor.__dlpack__(max_version=(1, 3)))["shape"] == (1,) * 63 + (6,)


@pytest.mark.parametrize("device", [(8, 0), (7, 3), (14, 0)])
def test_a_tensor_of_any_device_is_held_but_not_read(device: tuple[int, int]) -> None:
    tensor, token = managed(device=device)
    assert tensor.device == device and tensor.__dlpack_device__() == device
    with pytest.raises(BufferError):
        memoryview(tensor)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(tensor)
    assert probe.fields(tensor.__dlpack__(max_version=(1, 0)))["device"] == device
    del tensor
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("device", ["cpu", (1, 0), None])
def test_from_dlpack_takes_the_device_it_is_on(device: Any) -> None:
    array = np.arange(3.0)
    assert dlbridge.from_dlpack(array, device=device).data_ptr == address(array)


@pytest.mark.parametrize("device", ["nonsense", "cpu:x", "", "cuda:-1"])
def test_an_unknown_device_is_a_value_error(device: str) -> None:
    with pytest.raises(ValueError) as caught:
        dlbridge.from_dlpack(np.arange(3.0), device=device)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


@pytest.mark.parametrize("device", [(8, 0), (14, 3)])
def test_a_device_that_nothing_reaches_is_refused(device: Any) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.from_dlpack(np.arange(3.0), device=device)


@pytest.mark.parametrize("device", [5, 1.5, ("cpu",), object()])
def test_a_device_of_the_wrong_type_is_a_bad_argument(device: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        dlbridge.from_dlpack(np.arange(3.0), device=device)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


def test_from_dlpack_copies_when_asked() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = dlbridge.from_dlpack(array, copy=True)
    assert tensor.data_ptr != address(array) and tensor.data_ptr % 64 == 0
    assert not tensor.readonly and tensor.strides == (1,)


def test_a_managed_tensor_of_a_managed_tensor_is_the_same_memory() -> None:
    tensor, token = managed()
    other = dlbridge.from_dlpack(tensor)
    assert other.data_ptr == tensor.data_ptr
    del tensor
    settle()
    assert probe.deletes(token) == 0 and dlbridge.to_numpy(other)[5] == 5
    del other
    settle()
    assert probe.deletes(token) == 1


# --- the buffer protocol ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
)
def test_the_buffer_protocol_gives_every_native_dtype(dtype: str) -> None:
    array = np.arange(12).astype(dtype).reshape(3, 4)[::-1, ::2]
    tensor = dlbridge.from_dlpack(array)
    view = memoryview(tensor)
    assert view.shape == (3, 2) and view.strides == array.strides and not view.readonly
    assert view.itemsize == array.itemsize
    back = np.asarray(view)
    assert back.dtype == array.dtype and np.array_equal(back, array)
    assert np.shares_memory(back, array)


def test_the_buffer_protocol_honours_read_only() -> None:
    tensor, _ = managed(flags=READ_ONLY)
    assert memoryview(tensor).readonly
    assert not np.asarray(memoryview(tensor)).flags.writeable
    with pytest.raises((TypeError, BufferError)):
        (np.ctypeslib.as_ctypes_type("f4") * 6).from_buffer(tensor)


def test_np_asarray_shares_the_memory() -> None:
    tensor, _ = managed(shape=(2, 3))
    array = np.asarray(tensor)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert address(array) == tensor.data_ptr


def test_a_0d_and_an_empty_buffer() -> None:
    assert memoryview(managed(shape=())[0]).tolist() == 0.0
    assert memoryview(managed(shape=(0, 3), null_data=True)[0]).shape == (0, 3)


def test_a_buffer_keeps_the_memory_alive() -> None:
    tensor, token = managed()
    view = memoryview(tensor)
    gone = weakref.ref(tensor) if hasattr(type(tensor), "__weakref__") else None
    del tensor
    settle()
    assert view.tolist() == [0, 1, 2, 3, 4, 5]
    assert probe.deletes(token) == 0
    view.release()
    settle()
    assert probe.deletes(token) == 1
    assert gone is None or gone() is None


@pytest.mark.parametrize("dtype", [(4, 16), (10, 8), (17, 4, 2), (2, 32, 4)])
def test_a_dtype_without_a_buffer_format_is_not_disguised(dtype: tuple[int, ...]) -> None:
    # A buffer of "H" or "B" would be a silent cast; to_numpy is the way for these.
    tensor, _ = managed(shape=(1,), dtype=dtype)
    with pytest.raises(BufferError):
        memoryview(tensor)


def test_bfloat16_comes_back_to_numpy_as_ml_dtypes() -> None:
    array = np.arange(6).astype(ml_dtypes.bfloat16)
    back = dlbridge.to_numpy(dlbridge.from_dlpack(array))
    assert back.dtype == ml_dtypes.bfloat16 and address(back) == address(array)


def test_a_managed_tensor_of_something_in_a_graph_is_read_only(road: str) -> None:
    weight = torch.ones(3, requires_grad=True)
    tensor = dlbridge.from_dlpack(weight)
    assert tensor.readonly and tensor.data_ptr == weight.data_ptr()
    assert not dlbridge.from_dlpack(weight, copy=True).readonly
    assert not dlbridge.from_dlpack(weight.detach()).readonly


def test_a_copy_of_padded_elements_is_refused_by_its_plan() -> None:
    tensor, _ = managed(dtype=(17, 4), flags=PADDED)
    with pytest.raises(dlbridge.ConversionRefused, match="would be read as packed ones"):
        tensor.__dlpack__(copy=True, max_version=(1, 3))


def test_a_copy_of_memory_that_nobody_reaches_is_refused() -> None:
    tensor, token = managed(device=(15, 0))
    with pytest.raises(dlbridge.ConversionRefused, match="there is no runtime"):
        tensor.__dlpack__(copy=True, max_version=(1, 3))
    del tensor
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("count", [0, 3])
def test_of_nothing_any_address_is_a_copy(count: int) -> None:
    class Elsewhere(Producer):
        device = (15, 0)  # which nothing here reaches: it is asked to copy there

    producer = Elsewhere(data=bytes(12), shape=(count,), device=(15, 0))
    if count == 0:
        assert dlbridge.from_dlpack(producer, copy=True).shape == (0,)
    else:
        with pytest.raises(dlbridge.ConversionRefused, match="and did not copy"):
            dlbridge.from_dlpack(producer, copy=True)
    assert producer.calls[-1]["copy"] is True


STRIDES, C_ORDER, FORTRAN, EITHER = 0x18, 0x38, 0x58, 0x98  # as CPython's object.h has them


@pytest.mark.parametrize(
    ("array", "granted"),
    [
        (np.zeros((2, 3)), {STRIDES, C_ORDER, EITHER, 0}),
        (np.zeros((2, 3), order="F"), {STRIDES, FORTRAN, EITHER}),
        (np.zeros(3), {STRIDES, C_ORDER, FORTRAN, EITHER, 0}),
        (np.zeros((2, 6))[:, ::2], {STRIDES}),
    ],
    ids=["in C's order", "in Fortran's", "a row", "with gaps"],
)
def test_a_buffer_has_the_layout_that_was_asked_for(array: np.ndarray, granted: set[int]) -> None:
    tensor = dlbridge.from_dlpack(array)
    for flags in (STRIDES, C_ORDER, FORTRAN, EITHER, 0):
        view = ctypes.create_string_buffer(256)
        asked = (ctypes.py_object(tensor), view, flags)
        if flags in granted:
            assert ctypes.pythonapi.PyObject_GetBuffer(*asked) == 0
            assert ctypes.c_void_p.from_buffer(view).value == address(array)
            ctypes.pythonapi.PyBuffer_Release(view)
        else:
            with pytest.raises(BufferError, match="contiguous"):
                ctypes.pythonapi.PyObject_GetBuffer(*asked)
