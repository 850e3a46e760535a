"""MLX: lazy; on the processor it copies whatever it takes, and narrows 64-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

mx = pytest.importorskip("mlx.core")


class TestAsTarget(AsTarget):
    target = "mlx"


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint32", "float16", "float32", "complex64")
    read_only = True
    make = staticmethod(mx.array)

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.T, lambda a: a.T),
            "reversed": (x[::-1], lambda a: a[::-1]),
            "lazy": (x * 2 + 1, lambda a: a * 2 + 1),
        }


def test_its_slices_have_offsets_that_others_ignore() -> None:
    x = mx.array(np.arange(12, dtype="f4"))[6:]
    for target in ("numpy", "paddle", "warp", "max"):
        if target != "numpy":
            pytest.importorskip(target)
        found = dlbridge.to_numpy(dlbridge.to(x, target))
        assert found.tolist() == list(range(6, 12)), target


def test_a_view_cannot_be_promised() -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="makes a copy") as refused:
        dlbridge.to(VALUES, "mlx", copy=False)
    assert refused.value.fix is not None and "copy=False" in refused.value.fix
    assert dlbridge.explain(VALUES, "mlx").bytes_copied == VALUES.nbytes


def test_float64_is_not_narrowed_silently() -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="float64"):
        dlbridge.to(VALUES.astype("f8"), "mlx")
    assert dlbridge.to(VALUES.astype("f8"), "mlx", dtype="float32").dtype == mx.float32
