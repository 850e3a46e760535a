"""Warp: legacy capsules only, at most four dimensions and no 0-d; ignores byte_offset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import AsSource, AsTarget

import dlbridge

wp = pytest.importorskip("warp")
wp.config.quiet = True


class TestAsTarget(AsTarget):
    target = "warp"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return result.numpy()

    @staticmethod
    def write(result: Any) -> None:
        result.zero_()


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64")

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return wp.array(array, device="cpu")

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.transpose(), lambda a: a.T),
        }


def test_vectors_have_a_dimension_of_their_own() -> None:
    x = wp.array(np.arange(6, dtype="f4").reshape(2, 3), dtype=wp.vec3, device="cpu")
    assert dlbridge.to_numpy(x).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_it_starts_by_itself() -> None:
    from dlb_support import run_child

    code = (
        "import warp; warp.config.quiet = True\n"
        "import numpy as np, dlbridge\n"
        "print(dlbridge.to(np.arange(3.0), 'warp').numpy().tolist())"
    )
    assert "[0.0, 1.0, 2.0]" in run_child(code)
