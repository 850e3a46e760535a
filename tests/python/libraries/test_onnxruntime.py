"""ONNX Runtime's OrtValue: legacy capsules only, C order only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import AsSource, AsTarget

ort = pytest.importorskip("onnxruntime")


class TestAsTarget(AsTarget):
    target = "onnxruntime"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return result.numpy()

    @staticmethod
    def write(result: Any) -> None:
        result.update_inplace(np.zeros(result.shape(), result.numpy().dtype))


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64")
    make = staticmethod(ort.OrtValue.ortvalue_from_numpy)
