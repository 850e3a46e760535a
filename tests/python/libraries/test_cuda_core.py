"""cuda.core's StridedMemoryView: versioned, honours read-only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

utils = pytest.importorskip("cuda.core.utils")


class TestAsTarget(AsTarget):
    target = "cuda.core"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        if 0 in result.shape:
            return np.zeros(result.shape, "f4")
        return np.from_dlpack(result)


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64", "complex64")

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return utils.StridedMemoryView.from_dlpack(np.array(array), -1)


def test_read_only_stays_so() -> None:
    source = VALUES.copy()
    source.flags.writeable = False
    result = dlbridge.to(source, "cuda.core")
    assert result.readonly and not dlbridge.to_numpy(result).flags.writeable


def test_the_module_names_the_target() -> None:
    import cuda.core

    assert dlbridge.to(VALUES.copy(), cuda.core).shape == (4, 6)
