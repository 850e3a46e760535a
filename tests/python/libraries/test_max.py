"""MAX's Buffer: ignores byte_offset and strides, and exports wrong strides for its own views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import AsSource, AsTarget

import dlbridge

driver = pytest.importorskip("max.driver")


class TestAsTarget(AsTarget):
    target = "max"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return result.to_numpy()

    @staticmethod
    def write(result: Any) -> None:
        result.inplace_copy_from(driver.Buffer.zeros(result.shape, result.dtype))
        result.to_numpy()  # waits: the copy would write into freed memory (MAX 26.7)


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64")

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return driver.Buffer.from_numpy(np.array(array))

    @staticmethod
    def derived(x: Any) -> Any:
        return {"strided view": (x[::2, ::3], lambda a: a[::2, ::3])}


def test_a_strided_view_is_a_copy() -> None:
    x = driver.Buffer.from_numpy(np.arange(24, dtype="f4").reshape(4, 6))[::2, ::3]
    with pytest.raises(dlbridge.ConversionRefused, match="hands out a copy"):
        dlbridge.to_numpy(x, copy=False)
