"""Random shapes, strides, offsets and dtypes sent around, compared element by element."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import torch
from dlb_support import address, bounds, is_private
from hypothesis import given, settings
from hypothesis import strategies as st

import dlbridge

NATIVE = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = [np.dtype(name) for name in NATIVE] + [
    np.dtype(ml_dtypes.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e5m2),
]
FEW = settings(max_examples=120)
Draw = Any


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return getattr(torch, dtype.name)


@st.composite
def layouts(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides in elements (none negative, none zero but at size 1) and offset: what slicing
    and permuting a contiguous block gives."""
    ndim = draw(st.integers(0, 5))
    whole = [draw(st.integers(1, 5)) for _ in range(ndim)]
    strides = [math.prod(whole[i + 1 :]) for i in range(ndim)]
    shape, offset = [], 0
    for i in range(ndim):
        begin = draw(st.integers(0, whole[i] - 1))
        step = draw(st.integers(1, 3))
        stop = draw(st.integers(begin, whole[i]))
        shape.append(len(range(begin, stop, step)))
        offset += begin * strides[i]
        strides[i] *= step
    order = draw(st.permutations(range(ndim)))
    return tuple(shape[i] for i in order), tuple(strides[i] for i in order), offset


def strided(raw: np.ndarray, dtype: np.dtype, layout: tuple[Any, Any, int]) -> np.ndarray:
    """The layout over the raw memory. (as_strided would lose the name of an ml_dtypes dtype.)"""
    shape, strides, offset = layout
    size = dtype.itemsize
    return np.ndarray(shape, dtype, raw.view("u1"), offset * size, [s * size for s in strides])


def block(dtype: np.dtype, seed: int) -> np.ndarray:
    """3200 elements of random bytes that are valid values (a bool has two)."""
    raw = np.random.default_rng(seed).integers(0, 256, 3200 * dtype.itemsize, dtype=np.uint8)
    return (raw % 2).view(bool) if dtype.kind == "b" else raw.view(dtype)


def same_elements(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit by bit at every index, whatever the strides."""
    assert a.shape == b.shape and a.dtype == b.dtype
    return all(a[index].tobytes() == b[index].tobytes() for index in np.ndindex(a.shape))


@FEW
@given(layout=layouts(), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32))
def test_torch_to_numpy_to_torch(
    road: str, layout: tuple[Any, Any, int], dtype: np.dtype, seed: int
) -> None:
    shape, strides, offset = layout
    raw = block(dtype, seed)
    base = torch.from_numpy(raw.view("u1").copy()).view(torch_dtype(dtype))
    tensor = base.as_strided(shape, strides, offset)
    expected = strided(raw, dtype, layout)
    policy = "strict" if dtype.kind != "V" and dtype.isbuiltin == 1 else "zero_copy"
    array = dlbridge.to_numpy(tensor, policy=policy)
    assert same_elements(array, expected)
    back = dlbridge.to_torch(array, policy="strict")
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    if array.size:
        assert address(array) == back.data_ptr() == tensor.data_ptr()
        for i, length in enumerate(shape):
            if length > 1:
                assert back.stride(i) == tensor.stride(i) == array.strides[i] // dtype.itemsize
    again = dlbridge.to_numpy(back, policy=policy)
    assert same_elements(again, expected)
    copied = dlbridge.to_numpy(tensor, copy=True)
    assert same_elements(copied, expected) and is_private(copied)


@FEW
@given(
    layout=layouts(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32),
    flip=st.lists(st.booleans(), min_size=5, max_size=5),
    swap=st.booleans(),
    read_only=st.booleans(),
    skew=st.sampled_from([0, 0, 0, 1, 4]),
)
def test_numpy_to_torch_to_numpy(
    road: str,
    layout: tuple[Any, Any, int],
    dtype: np.dtype,
    seed: int,
    flip: list[bool],
    swap: bool,
    read_only: bool,
    skew: int,
) -> None:
    raw = block(dtype, seed)
    room = np.empty(raw.nbytes + skew, "u1")
    room[skew:] = raw.view("u1")
    array = strided(room[skew:], dtype, layout)
    if array.ndim:
        array = array[tuple(slice(None, None, -1 if f else 1) for f in flip[: array.ndim])]
    if swap and dtype.isbuiltin == 1:
        array = array.view(dtype.newbyteorder())
    array.flags.writeable = not read_only
    expected = array.astype(dtype)
    before = array.tobytes()

    tensor = dlbridge.to_torch(array)
    back = dlbridge.to_numpy(tensor)
    assert same_elements(back, expected)
    plan = dlbridge.explain(array, "torch")
    reversed_ = any(n > 1 and s < 0 for n, s in zip(array.shape, array.strides, strict=True))
    swapped = not array.dtype.isnative
    if array.size and skew == 0:
        must_copy = reversed_ or swapped or read_only
        assert plan.view == (not must_copy)
        assert (address(back) == address(array)) == plan.view
        if must_copy:
            low, high = bounds(array)
            assert not low <= tensor.data_ptr() < high
    if array.size and not plan.view:
        tensor.zero_()
        assert array.tobytes() == before
    private = dlbridge.to_torch(array, policy="snapshot")
    assert same_elements(dlbridge.to_numpy(private), expected)


@FEW
@given(layout=layouts(), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32))
def test_through_a_managed_tensor_and_a_capsule(
    layout: tuple[Any, Any, int], dtype: np.dtype, seed: int
) -> None:
    array = strided(block(dtype, seed), dtype, layout)
    array = array[::-1] if array.ndim else array
    managed = dlbridge.from_dlpack(dlbridge.capsule(array))
    assert managed.shape == array.shape
    back = dlbridge.to_numpy(managed)
    assert same_elements(back, array)
    if array.size:
        assert address(back) == address(array) == managed.data_ptr
        assert back.flags.writeable
    legacy = dlbridge.to_numpy(dlbridge.capsule(array, max_version=None))
    assert same_elements(legacy, array) and not legacy.flags.writeable


@settings(max_examples=80)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    source=st.sampled_from(["c8", "c16"]),
    conj=st.booleans(),
    neg=st.booleans(),
    imag=st.booleans(),
    permute=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_lazy_bits_of_any_layout_have_torchs_values(
    road: str,
    shape: list[int],
    source: str,
    conj: bool,
    neg: bool,
    imag: bool,
    permute: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(source)
    tensor, expected = torch.from_numpy(values.copy()), values
    if permute:
        tensor, expected = tensor.permute(*range(tensor.ndim)[::-1]), expected.T
    if conj:
        tensor, expected = tensor.conj(), expected.conj()
    if neg:
        tensor, expected = torch._neg_view(tensor), -expected
    if imag:
        tensor, expected = tensor.imag, expected.imag
    result = dlbridge.to_numpy(tensor)
    assert np.array_equal(result, expected)
    lazy = tensor.is_conj() or tensor.is_neg()
    assert (address(result) == tensor.data_ptr()) == (not lazy)
    managed = dlbridge.from_dlpack(tensor)
    assert np.array_equal(np.asarray(managed), expected)
    if lazy:
        assert is_private(result) and not managed.readonly
