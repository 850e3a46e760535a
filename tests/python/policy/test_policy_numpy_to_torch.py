"""The policy table, cell by cell: NumPy arrays on their way to torch, on both roads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import NUMPY_2, PRESETS, address, bounds, native, torch_bytes
from numpy_sources import NATIVE, SOURCES, TORCH_HAS, TORCH_LACKS, read_only

import dlbridge

VIEW = ("view", "view", "view", "copy")
COPIED = ("refuse", "copy", "refuse", "copy")
NEVER = ("refuse", "refuse", "refuse", "refuse")

# What torch does not know (read-only, negative strides, strides that are no multiple of the item,
# unaligned items, swapped bytes) is copied where copies are allowed. Columns: strict, host,
# zero_copy, snapshot.
TABLE: dict[str, tuple[str, str, str, str]] = {
    "plain": VIEW,
    "Fortran order": VIEW,
    "transposed": VIEW,
    "stepped": VIEW,
    "0-d": VIEW,
    "64 dims": VIEW,
    "33 dims": VIEW,
    "np.matrix": VIEW,
    "memmap r+": VIEW,
    "memmap c": VIEW,
    "field, stride a multiple": VIEW,
    "size-1 dim, odd stride": VIEW,
    "size-1 dim, negative stride": VIEW,
    "empty, reversed": VIEW,
    "empty (0, 3)": VIEW,
    "overlapping": VIEW,  # an alias: torch itself refuses to write into it
    "ulonglong": VIEW,
    "longlong": VIEW,
    "read-only": COPIED,
    "memmap r": COPIED,
    "of a bytes object": COPIED,
    "broadcast": COPIED,
    "sliding windows": COPIED,
    "reversed": COPIED,
    "flipped both ways": COPIED,
    "read-only, reversed": COPIED,
    "byte-swapped": COPIED,
    "byte-swapped complex": COPIED,
    "byte-swapped, reversed": COPIED,
    "unaligned": COPIED,
    "field, stride no multiple": COPIED,
    "masked": NEVER,
    "masked, nothing masked": NEVER,
    "object": NEVER,
    "bytes": NEVER,
    "str": NEVER,
    "StringDType": NEVER,
    "datetime64": NEVER,
    "datetime64, byte-swapped": NEVER,
    "timedelta64": NEVER,
    "structured": NEVER,
    "recarray": NEVER,
    "void": NEVER,
    "longdouble": NEVER,
    "clongdouble": NEVER,
    **{f"dtype {name}": VIEW for name in NATIVE},
    **{f"ml_dtypes {name}": VIEW for name in sorted(TORCH_HAS)},
    **{f"ml_dtypes {name}": NEVER for name in sorted(TORCH_LACKS)},
}
CELLS = [
    pytest.param(name, preset, answer, id=f"{name}-{preset}")
    for name, answers in TABLE.items()
    if name in SOURCES
    for preset, answer in zip(PRESETS, answers, strict=True)
]


def test_every_kind_of_array_has_a_row() -> None:
    assert set(SOURCES) <= set(TABLE)
    assert set(TABLE) - set(SOURCES) <= (
        set() if NUMPY_2 else {"64 dims", "33 dims", "StringDType"}
    )


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return getattr(torch, native(dtype).name)


def check_answer(tensor: torch.Tensor, array: np.ndarray, answer: str) -> None:
    assert type(tensor) is torch.Tensor
    assert tensor.dtype == torch_dtype(array.dtype)
    assert tuple(tensor.shape) == array.shape
    assert tensor.device.type == "cpu" and not tensor.requires_grad
    assert torch_bytes(tensor) == array.astype(native(array.dtype)).tobytes()
    if not array.size:
        return
    if answer == "view":
        assert tensor.data_ptr() == address(array)
    else:
        low, high = bounds(array)
        assert not low <= tensor.data_ptr() < high
        assert tensor.is_contiguous() and tensor.data_ptr() % 64 == 0


@pytest.mark.parametrize("name, preset, answer", CELLS)
def test_the_table_says_what_becomes_of_an_array(
    road: str, tmp_path: Path, name: str, preset: str, answer: str
) -> None:
    array = SOURCES[name](tmp_path)
    plan = dlbridge.explain(array, "torch", policy=preset)
    if answer == "refuse":
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            dlbridge.to_torch(array, policy=preset)
        assert plan.refused
        assert plan.reasons and plan.reasons == caught.value.reasons
        return
    tensor = dlbridge.to_torch(array, policy=preset)
    check_answer(tensor, array, answer)
    assert not plan.refused
    assert plan.view == (answer == "view")
    assert plan.writable  # torch knows nothing else
    assert plan.bytes_copied == (array.nbytes if answer == "copy" else 0)


WRITABLE = [
    n
    for n, a in TABLE.items()
    if a == VIEW and n in SOURCES and n != "overlapping" and not n.startswith("empty")
]


@pytest.mark.parametrize("name", WRITABLE)
def test_a_write_through_the_tensor_reaches_the_array(road: str, tmp_path: Path, name: str) -> None:
    array = SOURCES[name](tmp_path)
    tensor = dlbridge.to_torch(array, policy="strict")
    before = array.tobytes()
    bits = tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
    bits.copy_(torch.ones(()))
    assert array.tobytes() == torch_bytes(tensor) != before


def test_an_overlapping_array_is_aliased_and_torch_guards_it(road: str) -> None:
    array = np.lib.stride_tricks.as_strided(np.arange(3.0), (4, 3), (0, 8))
    tensor = dlbridge.to_torch(array)
    with pytest.raises(RuntimeError, match="single memory location"):
        tensor.add_(1)
    array[0, 0] = 99
    assert tensor[:, 0].tolist() == [99] * 4


READ_ONLY = ["read-only", "memmap r", "of a bytes object", "broadcast", "sliding windows"]


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize("preset", ["host", "snapshot"])
def test_a_write_into_the_tensor_never_reaches_read_only_memory(
    road: str, tmp_path: Path, name: str, preset: str
) -> None:
    array = SOURCES[name](tmp_path)
    before = array.tobytes()
    dlbridge.to_torch(array, policy=preset).fill_(77)
    assert array.tobytes() == before


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("value", [np.float32(3), np.int64(-4), np.bool_(True), np.complex128(1j)])
def test_numpy_scalars_become_0d_tensors(road: str, preset: str, value: Any) -> None:
    # A scalar cannot be written to, so a policy without copies may refuse it; it is never an alias.
    try:
        tensor = dlbridge.to_torch(value, policy=preset)
    except dlbridge.ConversionRefused:
        assert preset in ("strict", "zero_copy")
        return
    assert tensor.shape == () and tensor.item() == value
    assert tensor.dtype == torch_dtype(value.dtype)
    kept = value.item()
    tensor.zero_()
    assert value == kept


def test_masked_arrays_are_refused_with_the_fix(road: str) -> None:
    masked = np.ma.masked_less(np.arange(6.0), 3)
    with pytest.raises(dlbridge.ConversionRefused, match="mask") as caught:
        dlbridge.to_torch(masked)
    assert "filled" in caught.value.fix or ".data" in caught.value.fix


@pytest.mark.parametrize("name", [n for n, a in TABLE.items() if a != NEVER and n in SOURCES])
def test_a_managed_tensor_of_an_array_carries_it_unchanged(tmp_path: Path, name: str) -> None:
    array = SOURCES[name](tmp_path)
    managed = dlbridge.from_dlpack(array)
    assert managed.shape == array.shape
    back = dlbridge.to_numpy(managed)
    assert back.dtype == native(array.dtype)
    assert back.tobytes() == array.astype(native(array.dtype)).tobytes()
    assert back.flags.writeable == (name not in [*READ_ONLY, "read-only, reversed", "overlapping"])


@pytest.mark.parametrize("copy", [None, False])
def test_a_read_only_array_stays_read_only_inside_a_managed_tensor(copy: bool | None) -> None:
    array = read_only(np.arange(4.0))
    managed = dlbridge.from_dlpack(array, copy=copy)
    assert managed.readonly and managed.data_ptr == address(array)
    assert not dlbridge.to_numpy(managed).flags.writeable
