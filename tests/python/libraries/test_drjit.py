"""Dr.Jit: C order only, drops read-only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import AsSource, AsTarget

llvm = pytest.importorskip("drjit.llvm")


class TestAsTarget(AsTarget):
    target = "drjit"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return result.numpy()


class TestAsSource(AsSource):
    types = ("float32",)

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return llvm.TensorXf(array)
