"""What is special about NumPy: dtypes, byte order, views of records, dimensions, scalars."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import NUMPY_2, address, is_private, run_child
from numpy_sources import NATIVE, TORCH_HAS, of_ml_dtype, unaligned
from torch_sources import ML_DTYPES, bit_patterns

import dlbridge

MORE = ("longlong", "ulonglong", "intc", "uintc", "long", "ulong", "intp", "uintp", "byte", "short")
ALL_DTYPES = [*NATIVE, *(name for name in MORE if NUMPY_2 or name not in ("long", "ulong"))]


def roundtrips(array: np.ndarray) -> None:
    tensor = dlbridge.to_torch(array, policy="strict")
    assert tensor.data_ptr() == address(array)
    back = dlbridge.to_numpy(tensor, policy="strict")
    assert address(back) == address(array)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_every_native_dtype_goes_there_and_back_in_the_same_memory(road: str, dtype: str) -> None:
    array = (np.arange(60).reshape(3, 4, 5) % 7).astype(getattr(np, dtype, dtype))
    roundtrips(array)
    roundtrips(array.transpose(2, 0, 1)[1:, :, ::2])
    managed = dlbridge.from_dlpack(array)
    assert np.asarray(managed).dtype == array.dtype


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_bit_pattern_of_an_ml_dtype_goes_both_ways_unchanged(road: str, name: str) -> None:
    tensor, array = bit_patterns(name)
    out = dlbridge.to_numpy(tensor)
    assert out.dtype == array.dtype and out.tobytes() == array.tobytes()
    assert address(out) == tensor.data_ptr()
    there = dlbridge.to_torch(array, policy="strict")
    assert there.dtype == tensor.dtype and there.data_ptr() == address(array)
    assert torch.equal(there.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    "name", sorted({"float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"} | TORCH_HAS)
)
def test_ml_dtypes_pass_through_a_managed_tensor(name: str) -> None:
    array = of_ml_dtype(name)
    managed = dlbridge.from_dlpack(array)
    assert str(managed.dtype) == name
    back = dlbridge.to_numpy(managed)
    assert back.dtype == array.dtype and address(back) == address(array)
    assert back.tobytes() == array.tobytes()


def test_ml_dtypes_keep_their_strides(road: str) -> None:
    array = np.arange(24).astype(ml_dtypes.bfloat16).reshape(4, 6)[::2, 1::2]
    tensor = dlbridge.to_torch(array)
    assert tensor.stride() == (12, 2) and tensor.data_ptr() == address(array)
    assert tensor.float().tolist() == array.astype("f4").tolist()
    back = dlbridge.to_numpy(torch.arange(24.0).bfloat16().reshape(4, 6).t()[1:])
    assert back.dtype == ml_dtypes.bfloat16 and back.strides == (2, 12)


def test_without_ml_dtypes_bfloat16_is_refused_and_the_fix_says_so() -> None:
    out = run_child(
        """
import sys
sys.modules["ml_dtypes"] = None
import torch, dlbridge
for policy in ("strict", "host", "zero_copy", "snapshot"):
    try:
        dlbridge.to_numpy(torch.ones(3).bfloat16(), policy=policy)
    except dlbridge.ConversionRefused as error:
        assert policy == "strict" or "ml_dtypes" in str(error), str(error)
        print("refused")
wide = dlbridge.to_numpy(torch.ones(3).bfloat16(), policy=dlbridge.Policy(dtype="upcast"))
print(wide.dtype, dlbridge.to_numpy(torch.ones(3)).sum())
"""
    )
    assert out.split() == ["refused"] * 4 + ["float32", "3.0"]


def test_swapped_bytes_arrive_in_the_right_order(road: str) -> None:
    for dtype in ("i2", "u4", "i8", "f2", "f8", "c8", "c16"):
        native = (np.arange(24) * 3 - 7).astype(dtype).reshape(4, 6)
        swapped = native.astype(native.dtype.newbyteorder())
        for part in (np.s_[:], np.s_[::-1, ::2]):
            assert dlbridge.to_torch(swapped[part]).tolist() == native[part].tolist()
            assert np.array_equal(np.asarray(dlbridge.from_dlpack(swapped[part])), native[part])
        with pytest.raises(dlbridge.ConversionRefused, match="byte"):
            dlbridge.to_torch(swapped, copy=False)


def test_one_byte_items_have_no_byte_order(road: str) -> None:
    array = np.arange(3, dtype=np.dtype("u1").newbyteorder())
    assert dlbridge.to_torch(array, policy="strict").data_ptr() == address(array)


def test_unaligned_items_are_viewed_by_numpys_own_rules() -> None:
    array = unaligned("f8")
    back = dlbridge.to_numpy(dlbridge.from_dlpack(array))
    assert address(back) == address(array) and not back.flags.aligned
    assert back.tolist() == [0, 1, 2, 3, 4, 5]


def test_fields_of_records(road: str) -> None:
    records = np.zeros(4, dtype=[("a", "i2"), ("b", "f4")])  # packed: 6 bytes
    records["a"], records["b"] = [1, 2, 3, 4], [5, 6, 7, 8]
    shorts = dlbridge.to_torch(records["a"], policy="strict")
    assert shorts.tolist() == [1, 2, 3, 4] and shorts.stride() == (3,)
    shorts[0] = 9
    assert records["a"][0] == 9
    floats = dlbridge.to_torch(records["b"])
    assert floats.tolist() == [5, 6, 7, 8] and floats.is_contiguous()
    aligned = np.zeros(4, dtype=np.dtype([("a", "i2"), ("b", "f4")], align=True))
    assert dlbridge.to_torch(aligned["b"], policy="strict").stride() == (2,)


@pytest.mark.parametrize("ndim", [0, 1, 5, 31, 32, 33, 63, 64])
def test_up_to_64_dimensions_go_both_ways(road: str, ndim: int) -> None:
    if ndim > 32 and not NUMPY_2:
        pytest.skip("this NumPy has 32 dimensions")
    shape = (1,) * (ndim - 2) + (2, 3) if ndim >= 2 else (6,) * ndim
    tensor = torch.arange(float(np.prod(shape))).reshape(shape)
    array = dlbridge.to_numpy(tensor, policy="strict")
    assert array.shape == shape and array.ravel().tolist() == tensor.ravel().tolist()
    roundtrips(array)


def test_more_dimensions_than_the_target_has_are_refused(road: str) -> None:
    for ndim in (65, 66, 100):
        tensor = torch.ones((1,) * ndim)
        for door in (dlbridge.to_numpy, dlbridge.from_dlpack, dlbridge.capsule):
            with pytest.raises(dlbridge.ConversionRefused, match="dimension"):
                door(tensor)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5), (0, 0)])
@pytest.mark.parametrize("dtype", ["f4", "i8", "?", "c16"])
def test_every_empty_shape_goes_both_ways(road: str, shape: tuple[int, ...], dtype: str) -> None:
    array = np.empty(shape, dtype)
    tensor = dlbridge.to_torch(array, policy="strict")
    assert tuple(tensor.shape) == shape
    back = dlbridge.to_numpy(tensor, policy="strict")
    assert back.shape == shape and back.dtype == array.dtype
    assert dlbridge.to_torch(array[::-1], policy="strict").shape == shape
    assert dlbridge.from_dlpack(array).shape == shape
    assert is_private(dlbridge.to_numpy(tensor, copy=True))


def test_strides_of_size_1_dimensions_do_not_matter(road: str) -> None:
    tensor = torch.arange(6.0).as_strided((1, 3, 1), (77, 2, 0))
    array = dlbridge.to_numpy(tensor, policy="strict")
    assert array.tolist() == [[[0], [2], [4]]] and array.flags.writeable
    assert dlbridge.from_dlpack(tensor).strides[1] == 2
    assert not dlbridge.from_dlpack(tensor).readonly  # a size of 1 cannot overlap


@pytest.mark.parametrize("value", [np.float32(3), np.int8(-4), np.bool_(True), np.complex64(1j)])
def test_scalars_are_0d(value: Any) -> None:
    array = dlbridge.to_numpy(value)
    assert type(array) is np.ndarray
    assert array.shape == () and array.dtype == value.dtype and array == value
    managed = dlbridge.from_dlpack(value)
    assert managed.shape == () and dlbridge.to_numpy(managed) == value


def test_a_scalar_of_an_ml_dtype_is_0d(road: str) -> None:
    tensor = dlbridge.to_torch(ml_dtypes.bfloat16(1.5))
    assert tensor.shape == () and tensor.dtype == torch.bfloat16 and tensor.item() == 1.5


@pytest.mark.parametrize("value", [np.str_("a"), np.datetime64(1, "s"), np.longdouble(1)])
def test_scalars_of_other_kinds_are_arrays_of_numpys_alone(road: str, value: Any) -> None:
    with pytest.raises((dlbridge.ConversionRefused, TypeError)):
        dlbridge.to_torch(value)
    array = dlbridge.to_numpy(value)
    assert array.shape == () and array.dtype == value.dtype and array[()] == value


def test_a_number_that_dlpack_lacks_is_a_leaf_as_its_array_is() -> None:
    number = np.longdouble(1)
    assert dlbridge.to_numpy([number, np.ones(1)])[0].dtype == number.dtype
    for leaf in (number, np.array(number)):
        with pytest.raises(dlbridge.ConversionRefused, match="float128"):
            dlbridge.to_torch([leaf, np.ones(1)])


class Quantity(np.ndarray):
    """Somebody's own, without a ``value``."""

    unit = "m"


def test_the_fix_for_a_unit_works_for_any_class() -> None:
    x = np.ones(3).view(Quantity)
    with pytest.raises(dlbridge.ConversionRefused, match="with a unit") as refused:
        dlbridge.to_torch(x)
    call = str(refused.value.fix).partition(" (")[0]
    assert dlbridge.to_torch(eval(call, {"np": np, "x": x})).tolist() == [1, 1, 1]


def test_matrix_and_memmap_come_back_as_plain_arrays_from_elsewhere(road: str) -> None:
    matrix = np.arange(6.0).reshape(2, 3).view(np.matrix)
    back = dlbridge.to_numpy(dlbridge.to_torch(matrix))
    assert type(back) is np.ndarray and address(back) == address(matrix)


def test_a_memory_mapped_file_is_written_through_the_tensor(road: str, tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.zeros(4, "f4"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    dlbridge.to_torch(mapped).fill_(5)
    mapped.flush()
    assert np.load(tmp_path / "x.npy").tolist() == [5, 5, 5, 5]


def test_writing_to_a_tensor_of_a_read_only_map_does_not_kill_the_process(road: str) -> None:
    run_child(
        """
import os, tempfile
import numpy as np
folder = tempfile.mkdtemp()
np.save(os.path.join(folder, "x.npy"), np.zeros(4096, "f4"))
mapped = np.load(os.path.join(folder, "x.npy"), mmap_mode="r")
for source in (mapped, mapped[::2], dlbridge.from_dlpack(mapped), memoryview(mapped)):
    dlbridge.to_torch(source).fill_(5)
assert (mapped == 0).all()
""",
        road=road,
    )


def test_dtypes_that_no_dlpack_code_has_are_refused_by_name(road: str) -> None:
    named = {
        "object": np.array([None], dtype=object),
        "datetime64": np.array([0], dtype="M8[s]"),
        "timedelta64": np.array([0], dtype="m8[s]"),
        "longdouble|float128|float96": np.ones(1, np.longdouble),
        "str|<U|string": np.array(["a"]),
        "bytes|S1|string": np.array([b"a"]),
        "struct|void|record": np.zeros(1, dtype=[("a", "i4")]),
    }
    for word, array in named.items():
        for door in (dlbridge.to_torch, dlbridge.from_dlpack, dlbridge.capsule):
            with pytest.raises(dlbridge.ConversionRefused, match=word):
                door(array)


def test_a_unit_of_a_type_that_dlpack_lacks_is_taken_away_first() -> None:
    for dtype in ("longdouble", "M8[s]"):
        x = np.zeros(2, dtype).view(Quantity)
        plan = dlbridge.explain(x, "torch")
        assert plan.fix == "x.view(np.ndarray) (the unit is lost)"


def test_a_struct_without_fields_is_refused_and_copied_as_any() -> None:
    x = np.zeros(3, np.dtype([]))
    assert dlbridge.to_numpy(x, copy=True).shape == (3,)
    with pytest.raises(dlbridge.ConversionRefused, match="no such type"):
        dlbridge.to_torch(x)


def test_a_copy_of_numpys_own_is_counted_told_and_forbidden() -> None:
    dates = np.array(["2020"], "M8[Y]")
    with dlbridge.trace() as log:
        dlbridge.to_numpy(dates, copy=True)
    assert log.total.copies == 1 and log.total.bytes_copied == dates.nbytes
    with dlbridge.no_copies(), pytest.raises(dlbridge.ConversionRefused, match="would copy"):
        dlbridge.to_numpy(dates, copy=True)
