"""The holders of memory that come with Python, and Pillow's images."""

from __future__ import annotations

import array
import ctypes
from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge


class NoOwnObjects(AsTarget):
    def test_its_own_objects_stay_themselves(self) -> None:
        pytest.skip("a new one is made each time")


class TestMemoryviewAsTarget(NoOwnObjects):
    target = "memoryview"

    @staticmethod
    def write(result: Any) -> None:
        np.asarray(result)[...] = 0


class TestMemoryviewAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64")

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return memoryview(np.array(array))

    @staticmethod
    def derived(x: Any) -> Any:
        return {"slice": (x[1:], lambda a: a[1:]), "reversed": (x[::-1], lambda a: a[::-1])}


class TestArrayAsTarget(AsTarget):
    target = "array"
    shape = (6,)


def test_array_as_source() -> None:
    for letter in "bBhHiIlLqQfd":
        x = array.array(letter, [1, 2, 3])
        view = dlbridge.to_numpy(x)
        assert view.tolist() == [1, 2, 3] and view.flags.writeable
        view[0] = 9
        assert x[0] == 9
        del view


class TestCtypesAsTarget(NoOwnObjects):
    target = "ctypes"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return np.ctypeslib.as_array(result) if isinstance(result, ctypes.Array) else scalar(result)

    @staticmethod
    def write(result: Any) -> None:
        ctypes.memset(ctypes.addressof(result), 0, ctypes.sizeof(result))


def scalar(result: Any) -> np.ndarray:
    return np.frombuffer(result, "f4").reshape(())


def test_ctypes_as_source() -> None:
    x = ((ctypes.c_double * 3) * 2)((1, 2, 3), (4, 5, 6))
    view = dlbridge.to_numpy(x)
    assert view.tolist() == [[1, 2, 3], [4, 5, 6]]
    dlbridge.to_torch(x)[1, 2] = 9
    assert x[1][2] == 9


def test_an_array_that_was_made_here_is_no_managed_tensor() -> None:
    made = dlbridge.to(VALUES.copy(), "ctypes")
    assert isinstance(dlbridge.to(made, "dlbridge"), dlbridge.ManagedTensor)


class TestImageAsTarget(AsTarget):
    target = "PIL"
    shape = (2, 3)

    @pytest.fixture(autouse=True)
    def pillow(self) -> None:
        pytest.importorskip("PIL.Image")

    @pytest.mark.parametrize("policy", ["host", "snapshot"])
    @pytest.mark.parametrize("kind", ["plain", "bytes", "bytes in three", "read-only"])
    def test_the_plan_comes_true(self, kind: str, policy: str) -> None:
        super().test_the_plan_comes_true(kind, policy)

    @pytest.mark.parametrize("name", ["uint8", "int32", "float32", "uint16"])
    def test_every_type_arrives_or_is_refused(self, name: str) -> None:
        super().test_every_type_arrives_or_is_refused(name)


def test_an_image_is_always_copied_out() -> None:
    image = pytest.importorskip("PIL.Image").fromarray(np.arange(12, dtype="u1").reshape(3, 4))
    result = dlbridge.to_numpy(image)
    np.testing.assert_array_equal(result, np.asarray(image))
    assert result.flags.writeable
    result[...] = 0
    assert np.asarray(image).max() == 11
    with pytest.raises(dlbridge.ConversionRefused, match="copy"):
        dlbridge.to_numpy(image, copy=False)


def test_a_memoryview_of_a_copy_in_bytes_is_read_only() -> None:
    view = dlbridge.to(VALUES.tobytes(), "memoryview")
    assert view.readonly
