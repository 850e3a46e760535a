"""The copy engine against NumPy, on layouts drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlbridge

DTYPES = ("u1", "u2", "f4", "f8", "c16")  # words of 1, 2, 4, 8 and 16 bytes
MEGABYTE = 1 << 20


def drawn(rng: np.random.Generator, dtype: str, size: int) -> np.ndarray:
    """An array of about that many bytes: permuted, reversed, sliced and stretched."""
    ndim = int(rng.integers(1, 6))
    weights = rng.random(ndim) + 0.05
    elements = size / np.dtype(dtype).itemsize
    shape = np.maximum(1, np.round(elements ** (weights / weights.sum()))).astype(int)
    steps = [int(rng.choice([1, 1, 1, 2, 3, -1, -2])) for _ in range(ndim)]
    starts = [int(rng.integers(0, 3)) for _ in range(ndim)]
    whole = [
        start + int(length) * abs(step)
        for start, length, step in zip(starts, shape, steps, strict=True)
    ]
    memory = rng.integers(0, 256, int(np.prod(whole)) * np.dtype(dtype).itemsize, np.uint8)
    array = memory.view(dtype).reshape(whole).transpose(rng.permutation(ndim))
    array = array[tuple(slice(int(rng.integers(0, 2)), None, step) for step in steps)]
    if rng.random() < 0.2 and size < MEGABYTE:
        array = np.broadcast_to(array, (int(rng.integers(2, 4)), *array.shape))
    return array


def assert_copied(array: np.ndarray) -> None:
    copy = dlbridge.to_numpy(array, copy=True)
    assert copy.flags.c_contiguous
    assert copy.flags.writeable
    expected = np.ascontiguousarray(array)
    assert copy.shape == array.shape
    # As bytes: random bits hold NaNs, which must come through as they are.
    assert copy.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(25))
def test_any_layout_of_any_width(dtype: str, seed: int) -> None:
    assert_copied(drawn(np.random.default_rng([seed, len(dtype)]), dtype, 40_000))


# Past the sizes from which on targets are streamed and threads help.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_any_large_layout_of_any_width(dtype: str, seed: int) -> None:
    assert_copied(drawn(np.random.default_rng([seed, 7]), dtype, 10 * MEGABYTE))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("towards", ["planes", "pixels"])
@pytest.mark.parametrize("side", [17, 1100])
def test_pixels_and_planes_of_any_width(dtype: str, channels: int, towards: str, side: int) -> None:
    rng = np.random.default_rng(channels)
    size = side if side < 100 else int(side / np.dtype(dtype).itemsize ** 0.5)
    shape = (2, size, size + 3, channels)
    bits = rng.integers(0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
    pixels = bits.view(dtype).reshape(shape)
    if towards == "planes":
        assert_copied(pixels.transpose(0, 3, 1, 2))
    else:
        assert_copied(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("size", [2**60, 2**61, 2**62])
@pytest.mark.parametrize("how", [{"copy": True}, {"dtype": "int8"}, {"dtype": "float64"}])
@pytest.mark.parametrize("target", ["numpy", "torch", "dlbridge"])
def test_a_copy_that_no_machine_holds_is_told_and_fails(
    road: str, size: int, how: dict[str, Any], target: str
) -> None:
    x = torch.ones(1).expand(size)
    plan = dlbridge.explain(x, target, **how)
    assert plan.bytes_copied >= size and "copy" in str(plan)
    with pytest.raises((MemoryError, dlbridge.ConversionRefused)):
        dlbridge.to(x, target, **how)
