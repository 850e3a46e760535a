"""array_api_strict: NumPy below, and nothing beyond the standard's types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import AsSource, AsTarget

xp = pytest.importorskip("array_api_strict")


class TestAsTarget(AsTarget):
    target = "array_api_strict"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return np.from_dlpack(result)

    @staticmethod
    def write(result: Any) -> None:
        result[...] = 0


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint32", "float32", "float64", "complex128")
    make = staticmethod(xp.asarray)

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.T, lambda a: a.T),
            "reversed": (x[::-1, :], lambda a: a[::-1]),
        }
