"""polars, and duckdb's results: columns by Arrow's C interface."""

from __future__ import annotations

import datetime as dt
import functools
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from library_tests import followed

import dlbridge

pl = pytest.importorskip("polars")
NUMBERS = [
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float32",
    "Float64",
]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_of_numbers_is_a_view(name: str) -> None:
    x = pl.Series("a", [1, 2, 3], dtype=getattr(pl, name))
    view = dlbridge.to_numpy(x, copy=False)
    assert view.dtype == np.dtype(name.lower()) and view.tolist() == [1, 2, 3]
    assert view.ctypes.data == x.to_numpy().ctypes.data and not view.flags.writeable
    assert dlbridge.to_numpy(x[1:], copy=False).tolist() == [2, 3]


@pytest.mark.parametrize("name", NUMBERS)
def test_an_array_becomes_a_series_over_its_memory(name: str) -> None:
    a = np.arange(5).astype(name.lower())
    series = dlbridge.to(a, "polars", copy=False)
    assert series.dtype == getattr(pl, name) and series.to_list() == [0, 1, 2, 3, 4]
    assert series.to_numpy().ctypes.data == a.ctypes.data
    assert dlbridge.explain(a, "polars").view and not dlbridge.explain(a, "polars").writable
    assert dlbridge.to(series, pl) is series


def test_what_polars_cannot_hold_is_refused_or_copied() -> None:
    reversed_series = dlbridge.to(np.arange(3)[::-1], "polars")
    assert reversed_series.to_list() == [2, 1, 0]
    assert dlbridge.to(np.array([1.0, np.nan]), "polars").null_count() == 0
    for x in (np.zeros((2, 2)), np.float32(1), np.zeros(2, bool), np.zeros(2, complex)):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to(x, "polars")
    with pytest.raises(dlbridge.ConversionRefused):  # nobody may write to it any more
        dlbridge.to(np.zeros(3), "polars", policy="strict")


def test_a_series_keeps_the_memory() -> None:
    series = dlbridge.to(torch.arange(1 << 16), "polars")
    assert series.to_numpy()[-1] == (1 << 16) - 1


def test_the_view_outlives_the_series() -> None:
    x = pl.Series("a", np.arange(1 << 16))
    view = dlbridge.to_numpy(x, copy=False)
    del x
    assert view.sum() == sum(range(1 << 16))


def test_torch_gets_memory_of_its_own() -> None:
    pytest.importorskip("torch")
    x = pl.Series("a", [1.0, 2.0])
    dlbridge.to_torch(x).zero_()
    assert x.to_list() == [1, 2]
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_torch(x, policy="strict")
    assert caught.value.fix
    assert caught.value.fix.endswith("or dlbridge.to_numpy(x, copy=True)")


@pytest.mark.parametrize(
    ("x", "numbers"),
    [
        (pl.Series([1.0, 2.0]), [1, 2]),
        (pl.Series([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pl.Series([7]).cast(pl.Date), [7]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), [0, 1]),
        (pl.DataFrame({"a": [1], "b": [2.5]}), [1]),  # by columns, of which it is the first's
    ],
)
def test_a_fix_that_makes_memory_of_its_own_comes_last(x: Any, numbers: list[Any]) -> None:
    pytest.importorskip("torch")
    assert followed(x, functools.partial(dlbridge.to_torch, copy=False)) == numbers


def test_booleans_chunks_and_frames_are_one_copy() -> None:
    x = pl.Series([True, False, True])
    assert dlbridge.to_numpy(x[1:]).tolist() == [False, True]
    s = pl.Series("a", [1.0, 2.0])
    two = pl.concat([s, s], rechunk=False)
    assert dlbridge.to_numpy(two).tolist() == [1, 2, 1, 2]
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    made = dlbridge.to_numpy(frame)
    assert made.tolist() == [[1, 3], [2, 4]] and made.flags.c_contiguous and made.flags.writeable
    for source in (x, two, frame):
        plan = dlbridge.explain(source, "numpy")
        assert plan.steps == ("gather",)
        assert plan.bytes_copied == dlbridge.to_numpy(source).nbytes
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(source, copy=False)


@pytest.mark.parametrize("rows", [1, 255, 5000])
@pytest.mark.parametrize("columns", [2, 7, 100])
def test_frames_of_many_shapes(rows: int, columns: int) -> None:
    values = np.arange(rows * columns, dtype="f4").reshape(rows, columns)
    frame = pl.DataFrame({str(i): values[:, i] for i in range(columns)})
    frame = pl.concat([frame, frame[1:]], rechunk=False)
    np.testing.assert_array_equal(dlbridge.to_numpy(frame), np.concatenate([values, values[1:]]))


def test_arrays_and_even_lists_have_a_dimension_more() -> None:
    x = pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2))
    assert dlbridge.to_numpy(x, copy=False).tolist() == [[1, 2], [3, 4]]
    x = pl.Series([[[1, 2], [3, 4]]], dtype=pl.Array(pl.Int64, (2, 2)))
    assert dlbridge.to_numpy(x, copy=False).tolist() == [[[1, 2], [3, 4]]]
    assert dlbridge.to_numpy(pl.Series([[1, 2], [3, 4]]), copy=False).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(dlbridge.ConversionRefused, match="different lengths"):
        dlbridge.to_numpy(pl.Series([[1], [2, 3]]))


def test_the_fixes_work() -> None:
    x = pl.Series([1, None])
    with pytest.raises(dlbridge.ConversionRefused, match="with nulls") as caught:
        dlbridge.to_numpy(x)
    call = str(caught.value.fix).partition(" (")[0]
    assert dlbridge.to_numpy(eval(call)).tolist() == [1, 0]
    x = pl.DataFrame({"a": [1], "b": [2.5], "c": ["text"]})
    with pytest.raises(dlbridge.ConversionRefused, match="int64, float64, string") as caught:
        dlbridge.to_numpy(x)
    tree = dlbridge.to_numpy(eval(str(caught.value.fix)))
    assert tree["a"].tolist() == [1] and tree["b"].tolist() == [2.5]
    assert tree["c"].to_list() == ["text"]
    for kind in ("Date", "Datetime", "Duration", "Time", "String", "Null"):
        with pytest.raises(dlbridge.ConversionRefused, match="of dtype"):
            dlbridge.to_numpy(pl.Series([None], dtype=getattr(pl, kind)))


def test_results_of_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    x = duckdb.sql("select i::double as a, -i::double as b from range(5000) t(i)")
    made = dlbridge.to_numpy(x)
    np.testing.assert_array_equal(made, np.arange(5000.0)[:, None] * [1, -1])
    fixed = {
        "1.5::double as a, 2 as b": {"a": [1.5], "b": [2]},
        "sum(i) as a from range(4) t(i)": {"a": [6]},  # of 128 bits
        "'x' as a": {"a": ["x"]},
        "'x' as a, null::varchar as b": {"a": ["x"], "b": [""]},
    }
    for query, values in fixed.items():
        x = duckdb.sql(f"select {query}")
        tree = dlbridge.to_numpy(eval(dlbridge.explain(x, "numpy").fix.partition(" (")[0]))
        assert {name: column.tolist() for name, column in tree.items()} == values
    tree = duckdb.sql("select null::varchar as a, 1 as b").fetchnumpy()
    with pytest.raises(dlbridge.ConversionRefused, match="mask") as caught:
        dlbridge.to_numpy(tree)  # the objects would stay what they are
    assert caught.value.fix == "x['a'].filled() (the mask is lost)"
    assert followed(duckdb.sql("select null::double as a")) == [[0]]
    assert followed(duckdb.sql("select null::bool as a, true as b")) == [[False, True]]


def test_structs_of_several_types_are_a_tree_of_their_fields() -> None:
    x = pl.Series([{"a": 1, "b": 2.5}])
    with pytest.raises(dlbridge.ConversionRefused, match="of several types") as caught:
        dlbridge.to_numpy(x)
    tree = dlbridge.to_numpy(eval(str(caught.value.fix)))
    assert tree["a"].tolist() == [1] and tree["b"].tolist() == [2.5]


NO_NUMBERS = {
    "date": (lambda: pl.Series([dt.date(1970, 1, 3), None]), [2, 0]),
    "datetime": (lambda: pl.Series([dt.datetime(1970, 1, 1, 0, 0, 1)]), [1_000_000]),
    "duration": (lambda: pl.Series([dt.timedelta(seconds=1)]), [1_000_000]),
    "time": (lambda: pl.Series([dt.time(0, 0, 1)]), [1_000_000_000]),
    "category": (lambda: pl.Series(["a", "b", "a"], dtype=pl.Categorical), [0, 1, 0]),
    "category and a null": (lambda: pl.Series(["a", None], dtype=pl.Categorical), [0, -1]),
    "enumeration": (lambda: pl.Series(["b"], dtype=pl.Enum(["a", "b"])), [1]),
    "decimal": (lambda: pl.Series([Decimal("1.5")]), [1.5]),
    "text": (lambda: pl.Series(["b", "a", "b"]), [1, 0, 1]),
    "text and a null": (lambda: pl.Series(["b", None, "a"]), [2, 0, 1]),
    "128 bits": (lambda: pl.Series([7, None], dtype=pl.Int128), [7, 0]),
    "no type": (lambda: pl.Series([None]), [0]),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_makes_numbers_of_a_column_is_said(name: str) -> None:
    make, numbers = NO_NUMBERS[name]
    for call in (dlbridge.to_numpy, dlbridge.to_torch):
        assert followed(make(), call, fixes=1) == numbers


def test_a_frame_of_what_is_no_number_is_a_tree_of_its_columns() -> None:
    pairs = pl.DataFrame({"a": [[1.0, 2.0]], "b": [[3.0, 4.0]]})
    for x in (pairs, pl.DataFrame({"a": ["x"], "b": ["y"]}), pl.DataFrame()):
        with pytest.raises(dlbridge.ConversionRefused, match="no such type") as caught:
            dlbridge.to_numpy(x)
        tree = dlbridge.to_numpy(eval(str(caught.value.fix)))
        assert list(tree) == x.columns
        if x is pairs:
            assert tree["b"].tolist() == [[3, 4]]
