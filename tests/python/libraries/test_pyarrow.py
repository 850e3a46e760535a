"""pyarrow: takes versioned capsules only, honours read-only, has no bool of one byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

pa = pytest.importorskip("pyarrow")


class TestTensorAsTarget(AsTarget):
    target = "pyarrow"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        assert isinstance(result, pa.Tensor)
        return result.to_numpy()

    @staticmethod
    def write(result: Any) -> None:
        result.to_numpy()[...] = 0


class TestArrayAsTarget(AsTarget):
    target = "pyarrow.Array"
    shape = (6,)

    @staticmethod
    def values(result: Any) -> np.ndarray:
        assert isinstance(result, pa.Array)
        return result.to_numpy(zero_copy_only=False)

    def test_its_own_objects_stay_themselves(self) -> None:
        pytest.skip("an Array is of the library pyarrow")


class TestTensorAsSource(AsSource):
    types = ("int8", "int64", "uint8", "float16", "float64")
    make = staticmethod(pa.Tensor.from_numpy)


def test_an_array_is_read_only() -> None:
    x = pa.array([1, 2, 3])
    view = dlbridge.to_numpy(x)
    assert view.tolist() == [1, 2, 3] and not view.flags.writeable
    dlbridge.to_torch(x).fill_(7)
    assert x.to_pylist() == [1, 2, 3]
    assert dlbridge.to_numpy(x[1:]).tolist() == [2, 3]


def test_its_own_reason_comes_through() -> None:
    """A subclass of TypeError, for data reasons: no word about keywords."""
    for x in (pa.array([1, None]), pa.array([True])):
        with pytest.raises(pa.ArrowTypeError):
            dlbridge.to_numpy(x)


def test_chunks() -> None:
    one = pa.chunked_array([[1, 2, 3]])
    assert dlbridge.to_numpy(one).tolist() == [1, 2, 3]
    two = pa.chunked_array([[1, 2], [3]])
    with pytest.raises(dlbridge.ConversionRefused, match="combine_chunks"):
        dlbridge.to_numpy(two)


def test_libraries_that_speak_legacy_only_reach_it() -> None:
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(VALUES)
    with pytest.raises(Exception):  # noqa: B017 what pyarrow raises is its own affair
        pa.Tensor.from_dlpack(x)
    np.testing.assert_array_equal(dlbridge.to(x, "pyarrow").to_numpy(), VALUES)
