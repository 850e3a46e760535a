"""pyarrow: takes versioned capsules only, honours read-only, has no bool of one byte."""

from __future__ import annotations

import datetime as dt
import functools
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget, followed

import dlbridge

pa = pytest.importorskip("pyarrow")
NAN = math.nan


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


def test_an_array_that_says_where_it_is_crosses_as_any() -> None:
    class Located:
        def __arrow_c_device_array__(self, requested_schema: Any = None) -> Any:
            return pa.array([1.5, 2.5]).__arrow_c_device_array__(requested_schema)

    assert dlbridge.to_numpy(Located(), copy=False).tolist() == [1.5, 2.5]


def test_an_array_is_read_only() -> None:
    x = pa.array([1, 2, 3])
    view = dlbridge.to_numpy(x)
    assert view.tolist() == [1, 2, 3] and not view.flags.writeable
    dlbridge.to_torch(x).fill_(7)
    assert x.to_pylist() == [1, 2, 3]
    assert dlbridge.to_numpy(x[1:]).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("x", "numbers"),
    [
        (pa.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pa.table({"a": [1, 2]}), [[1], [2]]),
        (pa.py_buffer(b"ab"), [97, 98]),
        (pa.array(["b", "a"]), [0, 1]),
    ],
    ids=["lists", "table", "buffer", "texts"],
)
def test_the_fix_of_what_is_read_only_is_one_for_all(x: Any, numbers: list[Any]) -> None:
    pytest.importorskip("torch")
    assert followed(x, functools.partial(dlbridge.to_torch, copy=False)) == numbers


#: what pyarrow refuses by itself, with the calls that make numbers of it and what comes of them
REFUSED = {
    "nulls": (lambda: pa.array([1, None]), "x.fill_null(0)", [1, 0]),
    "nulls among floats": (lambda: pa.array([1.5, None]), 'x.fill_null(float("nan"))', [1.5, NAN]),
    "nulls among booleans": (
        lambda: pa.array([True, None]),
        "x.fill_null(False)",
        [True, False],
    ),
    "dates": (lambda: pa.array([7], pa.date32()), 'x.cast("int32")', [7]),
    "times": (lambda: pa.array([7], pa.time64("us")), 'x.cast("int64")', [7]),
    "timestamps": (lambda: pa.array([7], pa.timestamp("s")), 'x.cast("int64")', [7]),
    "nulls among durations": (
        lambda: pa.array([7, None], pa.duration("s")),
        'x.fill_null(0).cast("int64")',
        [7, 0],
    ),
    "decimals": (lambda: pa.array([Decimal("1.5")]), 'x.cast("float64")', [1.5]),
    "a dictionary": (
        lambda: pa.array([2.5, 2.5]).dictionary_encode(),
        "x.dictionary_decode()",
        [2.5, 2.5],
    ),
    "one chunk": (lambda: pa.chunked_array([[1, None]]), "x.fill_null(0)", [1, 0]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_its_own_refusal_becomes_ours_with_the_fix(name: str) -> None:
    make, call, values = REFUSED[name]
    x = make()
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_numpy(x)
    error = caught.value
    assert isinstance(error.__cause__, pa.ArrowTypeError)
    assert str(error.__cause__).rstrip(".") in str(error)
    plan = dlbridge.explain(x, "torch")
    assert plan.refused and plan.fix == error.fix
    assert (error.fix or "").partition(" (")[0] == call
    np.testing.assert_array_equal(dlbridge.to_numpy(eval(call)), values)


@pytest.mark.parametrize("values", [["a"], [{"a": 1}], [{"a": "b"}], [None], [["a"]]])
def test_what_holds_no_numbers_stays_in_a_tree(values: list[Any]) -> None:
    x = pa.array(values)
    if values == [{"a": 1}]:
        assert dlbridge.to_numpy(x).tolist() == [[1]]
        return
    with pytest.raises(dlbridge.ConversionRefused, match="of dtype"):
        dlbridge.to_numpy(x)
    assert dlbridge.to_numpy([x])[0] is x
    words = x.dictionary_encode() if values == ["a"] else x
    assert dlbridge.to_numpy([words])[0] is words


def test_chunks() -> None:
    one = pa.chunked_array([[1, 2, 3]])
    assert dlbridge.to_numpy(one, copy=False).tolist() == [1, 2, 3]
    two = pa.chunked_array([[1, 2], [3]])
    assert dlbridge.to_numpy(two).tolist() == [1, 2, 3]
    with pytest.raises(dlbridge.ConversionRefused, match="its 2 chunks lie apart"):
        dlbridge.to_numpy(two, copy=False)


def test_booleans_are_copied() -> None:
    x = pa.array([True, False, True])
    assert dlbridge.to_numpy(x[1:]).tolist() == [False, True]
    with pytest.raises(dlbridge.ConversionRefused, match="its booleans are bits"):
        dlbridge.to_numpy(x, copy=False)


def test_lists_of_one_length_are_another_dimension() -> None:
    for kind in (pa.list_(pa.int64()), pa.list_(pa.int64(), 2), pa.large_list(pa.int64())):
        x = pa.array([[1, 2], [3, 4], [5, 6]], kind)
        assert dlbridge.to_numpy(x[1:], copy=False).tolist() == [[3, 4], [5, 6]]
    with pytest.raises(dlbridge.ConversionRefused, match="different lengths"):
        dlbridge.to_numpy(pa.array([[1], [2, 3]]))


def test_tables_and_batches() -> None:
    for make in (pa.table, pa.record_batch):
        x = make({"a": [1.0, 2.0], "b": [3.0, 4.0]})
        assert dlbridge.to_numpy(x).tolist() == [[1, 3], [2, 4]]
        assert dlbridge.to_numpy(x.select(["b"]), copy=False).tolist() == [[3], [4]]
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            dlbridge.to_numpy(make({"a": [1.0], "b": ["x"]}))
        assert caught.value.fix == "dict(zip(x.column_names, x.columns))"
    x = pa.table({"a": [1.0], "b": ["x"]})
    tree = dlbridge.to_numpy(eval(caught.value.fix))
    assert tree["a"].tolist() == [1.0] and tree["b"] is not None


def test_a_reader_is_left_unread() -> None:
    x = pa.table({"a": [1, 2]}).to_reader()
    with pytest.raises(dlbridge.ConversionRefused, match="read only once"):
        dlbridge.to_numpy(x)
    assert dlbridge.to_numpy(x.read_all()).tolist() == [[1], [2]]


def test_libraries_that_speak_legacy_only_reach_it() -> None:
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(VALUES)
    with pytest.raises(Exception):  # noqa: B017 what pyarrow raises is its own affair
        pa.Tensor.from_dlpack(x)
    np.testing.assert_array_equal(dlbridge.to(x, "pyarrow").to_numpy(), VALUES)


def test_structs_of_several_types_are_a_tree_of_their_fields() -> None:
    x = pa.array([{"a": 1, "b": 2.5}])
    with pytest.raises(dlbridge.ConversionRefused, match="of several types") as caught:
        dlbridge.to_numpy(x)
    tree = dlbridge.to_numpy(eval(str(caught.value.fix)))
    assert tree["a"].tolist() == [1] and tree["b"].tolist() == [2.5]


def test_an_array_of_tensors_is_one_tensor() -> None:
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype="f4")), 6)
    x = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2, 3]), values)
    assert dlbridge.to_numpy(x, copy=False).shape == (2, 2, 3)
    assert dlbridge.to_torch(x).sum() == 66


NO_NUMBERS = {
    "date": (lambda: pa.array([dt.date(1970, 1, 3), None]), [2, 0]),
    "dates in chunks": (lambda: pa.chunked_array([[dt.date(1970, 1, 3)]] * 2), [2, 2]),
    "timestamp": (lambda: pa.array([dt.datetime(1970, 1, 1, 0, 0, 1)]), [1_000_000]),
    "decimal": (lambda: pa.array([Decimal("1.5")]), [1.5]),
    "texts": (lambda: pa.array(["a", "b", "a"]), [0, 1, 0]),
    "texts and a null": (lambda: pa.array(["a", None]), [0, -1]),
    "dictionary of texts and a null": (
        lambda: pa.array([None, "a", "b"]).dictionary_encode(),
        [-1, 0, 1],
    ),
    "texts and a null in chunks": (lambda: pa.chunked_array([["a"], [None]]), [0, -1]),
    "texts in chunks": (lambda: pa.chunked_array([["a"], ["b"]]), [0, 1]),
    "dictionary and a null": (lambda: pa.array([1, None, 1]).dictionary_encode(), [1, 0, 1]),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_makes_numbers_of_a_column_is_said(name: str) -> None:
    make, numbers = NO_NUMBERS[name]
    for call in (dlbridge.to_numpy, dlbridge.to_torch):
        assert followed(make(), call) == numbers


def test_texts_with_nulls_are_numbers_by_one_fix() -> None:
    for x in (pa.array(["a", None]), pa.array(["a", None]).dictionary_encode()):
        assert followed(x, dlbridge.to_torch, fixes=1) == [0, -1]


def test_nulls_of_booleans_are_filled_as_booleans() -> None:
    for x in (pa.array([True, None]), pa.chunked_array([[True], [None]])):
        assert dlbridge.explain(x, "numpy").fix == "x.fill_null(False) (nulls become False)"
        assert dlbridge.to_numpy(x.fill_null(False)).tolist() == [True, False]


def test_a_text_is_no_array_of_its_bytes() -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        with pytest.raises(TypeError, match=r"one text: x\.as_py\(\)"):
            dlbridge.to_numpy(pa.scalar("text", kind))


def test_the_fix_of_several_types_keeps_what_has_one_name() -> None:
    columns = [pa.array([1, 2]), pa.array([0.5, 1.5])]
    for x in (
        pa.table(columns, ["a", "a"]),
        pa.record_batch(columns, ["a", "a"]),
        pa.StructArray.from_arrays(columns, ["a", "a"]),
    ):
        with pytest.raises(dlbridge.ConversionRefused, match="of several types") as refused:
            dlbridge.to_numpy(x)
        parts = eval(str(refused.value.fix).partition(" (")[0])
        assert [part.tolist() for part in dlbridge.to_numpy(parts)] == [[1, 2], [0.5, 1.5]]


def test_dictionaries_and_tables_of_texts_have_a_fix() -> None:
    column = pa.array(["b", "a", "b"]).dictionary_encode()
    assert followed(column) == followed(pa.chunked_array([column])) == [0, 1, 0]
    assert dlbridge.to_torch([VALUES, column])[1] is column
    for x in (pa.table({"a": ["x"]}), pa.record_batch({"a": ["x"]})):
        with pytest.raises(dlbridge.ConversionRefused, match="dtype string") as refused:
            dlbridge.to_numpy(x)
        assert list(dlbridge.to_numpy(eval(str(refused.value.fix)))) == ["a"]
