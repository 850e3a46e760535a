"""pandas: over NumPy as its arrays, over Arrow by Arrow's interface."""

from __future__ import annotations

import numpy as np
import pytest
from library_tests import followed

import dlbridge

pd = pytest.importorskip("pandas")
torch = pytest.importorskip("torch")


def test_series_indices_and_frames_of_one_block_are_views() -> None:
    values = np.arange(6.0).reshape(3, 2)
    frame = pd.DataFrame(values)
    for x in (frame, frame[0], pd.Series([1.5, np.nan]), pd.Index([1, 2])):
        view = dlbridge.to_numpy(x, copy=False)
        np.testing.assert_array_equal(view, x.to_numpy())
        assert np.may_share_memory(view, x.to_numpy())
        assert view.flags.writeable == x.to_numpy().flags.writeable
        assert dlbridge.explain(x, "numpy").view


def test_an_index_is_a_leaf_of_a_tree_and_a_timestamp_stays() -> None:
    day, texts = pd.Timestamp("2020-01-01"), pd.Index(["a"])
    tree = dlbridge.to_torch({"rows": pd.Index([1, 2]), "day": day, "texts": texts})
    assert tree["rows"].tolist() == [1, 2] and tree["day"] is day and tree["texts"] is texts
    with pytest.raises(dlbridge.ConversionRefused, match=r"x\['rows'\]\.fillna"):
        dlbridge.to_torch({"rows": pd.array([1, None])})


def test_writing_to_what_torch_got_changes_no_frame() -> None:
    x = pd.Series([1.0, 2.0])
    dlbridge.to_torch(x).zero_()
    assert x.tolist() == [1, 2]


def test_columns_that_lie_apart_are_said_to_be_copied() -> None:
    x = pd.DataFrame({"a": [1.0, 2.0]})
    x["b"] = [3.0, 4.0]
    assert dlbridge.to_numpy(x).tolist() == [[1, 3], [2, 4]]
    assert dlbridge.explain(x, "numpy").bytes_copied == 32
    with pytest.raises(dlbridge.ConversionRefused, match="a copy, not its own memory"):
        dlbridge.to_numpy(x, copy=False)


def test_the_fixes_work() -> None:
    x = pd.DataFrame({"a": [1], "b": [2.5], "c": ["text"], "d": pd.to_datetime(["2020-01-01"])})
    with pytest.raises(dlbridge.ConversionRefused, match="int64, float64") as caught:
        dlbridge.to_torch(x)
    tree = dlbridge.to_torch(eval(str(caught.value.fix)))
    assert tree["a"].tolist() == [1] and tree["b"].tolist() == [2.5]
    assert tree["c"] is not None and tree["d"] is not None
    with pytest.raises(dlbridge.ConversionRefused, match="datetime64"):
        dlbridge.to_torch(x["d"])
    assert dlbridge.to_numpy(x["d"]).dtype.kind == "M"


def test_arrow_and_nullable_types() -> None:
    pytest.importorskip("pyarrow")
    for dtype in ("int64[pyarrow]", "Int64"):
        x = pd.Series([1, 2], dtype=dtype)
        assert dlbridge.to_torch(x).tolist() == [1, 2]
        x = pd.Series([1, None], dtype=dtype)
        with pytest.raises(dlbridge.ConversionRefused, match="with nulls") as caught:
            dlbridge.to_torch(x)
        call = str(caught.value.fix).partition(" (")[0]
        assert dlbridge.to_torch(eval(call)).tolist() == [1, 0]
    x = pd.Series(["a", "b"], dtype="category")
    with pytest.raises(dlbridge.ConversionRefused, match="of dtype dictionary"):
        dlbridge.to_torch(x)


def test_tensors_become_series_and_frames_over_their_memory() -> None:
    x = torch.zeros(3, 2)
    frame = dlbridge.to(x, "pandas")
    series = dlbridge.to(x[:, 0], pd)
    x += 1
    assert isinstance(frame, pd.DataFrame) and frame.to_numpy().tolist() == [[1, 1]] * 3
    assert isinstance(series, pd.Series) and series.tolist() == [1, 1, 1]
    with pytest.raises(dlbridge.ConversionRefused, match="at most 2"):
        dlbridge.to(torch.zeros(2, 2, 2), "pandas")
    assert dlbridge.to(frame, "pandas") is frame


def test_arrays_of_columns_are_columns() -> None:
    pytest.importorskip("pyarrow")
    assert dlbridge.to_torch(pd.array([1, 2], dtype="Int64")).tolist() == [1, 2]
    assert dlbridge.to_numpy(pd.array([True, False], dtype="boolean")).tolist() == [True, False]
    x = pd.array([1, None], dtype="Int64")
    with pytest.raises(dlbridge.ConversionRefused, match="with nulls") as caught:
        dlbridge.to_numpy(x)
    assert dlbridge.to_numpy(eval(str(caught.value.fix).partition(" (")[0])).tolist() == [1, 0]
    dense = pd.arrays.SparseArray([0.0, 1.0])
    for x in (dense, pd.Series(dense), pd.DataFrame({"a": dense})):
        with pytest.raises(dlbridge.ConversionRefused, match="sparse") as caught:
            dlbridge.to_numpy(x)
        made = dlbridge.to_numpy(eval(str(caught.value.fix), {"x": x}))
        assert made.ravel().tolist() == [0, 1]


def test_what_is_no_array_is_none() -> None:
    for x in (pd.Timestamp("2020"), pd.NaT, pd.NA, pd.Interval(0, 1), pd.Series([1]).groupby([1])):
        for call in (dlbridge.to_numpy, dlbridge.to_torch):
            with pytest.raises(TypeError, match="is no array"):
                call(x)
        assert dlbridge.to_numpy([x, np.ones(1)])[0] is x


def test_a_frame_of_several_types_stays_pandas_own() -> None:
    frame = pd.DataFrame({"a": [1], "b": ["x"]})
    assert dlbridge.to(frame, "pandas") is frame
    assert dlbridge.explain(frame, "pandas").view


DATES = pd.to_datetime([1, 2], unit="ns")
NO_NUMBERS = {
    "dates with a zone": (lambda: pd.Series(pd.to_datetime([1], utc=True, unit="ns")), [1]),
    "texts": (lambda: pd.Series(["a", "b", "a"], dtype="string"), [0, 1, 0]),
    "category": (lambda: pd.Series(["a", "b"], dtype="category"), [0, 1]),
    "array of categories": (lambda: pd.Categorical(["b", "b"]), [0, 0]),
    "category of dates": (lambda: pd.Series(DATES.astype("category")), [1, 2]),
    "index of dates as categories": (lambda: pd.CategoricalIndex(DATES), [1, 2]),
    "category of dates with a zone": (lambda: pd.Categorical(DATES.tz_localize("UTC")), [1, 2]),
    "category of durations": (lambda: pd.Series(DATES - DATES[0]).astype("category"), [0, 1]),
    "category of periods": (lambda: pd.Categorical(DATES.to_period("D")), [0, 0]),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_makes_numbers_of_a_column_is_said(name: str) -> None:
    pytest.importorskip("pyarrow")
    make, numbers = NO_NUMBERS[name]
    for call in (dlbridge.to_numpy, dlbridge.to_torch):
        assert followed(make(), call, fixes=1, pd=pd) == numbers


def test_dates_and_objects_go_to_torch_by_their_fix() -> None:
    for x, numbers in (
        (pd.Series(pd.to_datetime([1], unit="ns")), [1]),
        (pd.Series(pd.to_timedelta([2], unit="ns")), [2]),
        (pd.Series([2, 1], dtype=object), [2, 1]),
    ):
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            dlbridge.to_torch(x)
        call = str(caught.value.fix).partition(" (")[0]
        assert dlbridge.to_torch(eval(call)).tolist() == numbers


def test_a_category_of_numbers_keeps_them() -> None:
    pytest.importorskip("pyarrow")
    x = pd.Series([5, 3, 5], dtype="category")
    for each in (x, pd.CategoricalIndex(x), x.array):
        assert followed(each, dlbridge.to_torch, np=np) == [5, 3, 5]
    assert followed(x.astype("Int64").astype("category"), np=np) == [5, 3, 5]
    assert followed(pd.Series(["b", "a", "b"], dtype="category"), np=np) == [0, 1, 0]


def test_what_makes_numbers_of_a_frame_or_an_index_is_said() -> None:
    pytest.importorskip("pyarrow")
    periods = pd.period_range("1970-01", periods=2, freq="M")
    assert followed(periods) == followed(pd.Series(periods)) == [0, 1]
    pairs = pd.MultiIndex.from_tuples([(1, 2), (3, 4)])
    assert followed(pairs, dlbridge.to_torch, np=np) == [[1, 2], [3, 4]]
    texts = pd.DataFrame({"a": ["x"], "b": ["y"]})
    twice = pd.DataFrame({"a": [1], "b": [2.5]}).set_axis(["a", "a"], axis=1)
    for x in (texts, twice):
        fix = str(dlbridge.explain(x, "torch").fix).partition(" (")[0]
        parts = dlbridge.to_torch(eval(fix, {"x": x}))
        assert len(parts) == 2 and (x is texts or parts[1].tolist() == [2.5])
