"""What has nothing better than __array__: no array is made before its plan is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dlb_support import shares
from lazy_sources import VALUES, Lazy, Old, Silent

import dlbridge


def test_it_is_a_copy_and_is_said_to_be_one() -> None:
    x = Lazy()
    plan = dlbridge.explain(x, "numpy")
    assert x.asked == []
    assert plan.steps == ("gather",) and plan.bytes_copied == 24
    assert not plan.view and plan.writable and plan.shape == (2, 3) and plan.dtype == "float32"
    with dlbridge.trace() as log:
        made = dlbridge.to_numpy(x)
    assert x.asked == [True] and np.array_equal(made, VALUES) and made.flags.writeable
    assert [(each.steps, each.bytes_copied) for each in log] == [(plan.steps, 24)]


def test_the_array_is_not_copied_a_second_time() -> None:
    large = np.zeros(1 << 20)
    addresses = []

    def make() -> Any:
        array = large.copy()
        addresses.append(array.ctypes.data)
        return array

    assert dlbridge.to_numpy(Lazy(large, make)).ctypes.data == addresses[0]
    assert dlbridge.to_torch(Lazy(large, make)).data_ptr() == addresses[1]


@pytest.mark.parametrize("policy", ["strict", "zero_copy"])
def test_it_is_refused_where_copies_are(policy: str) -> None:
    x = Lazy()
    with pytest.raises(dlbridge.ConversionRefused, match="no array yet") as caught:
        dlbridge.to_numpy(x, policy=policy)
    assert caught.value.fix == 'policy="host" to copy, or np.asarray(x)'
    with pytest.raises(dlbridge.ConversionRefused, match="no array yet"):
        dlbridge.to_torch(x, copy=False)
    with dlbridge.no_copies(), pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x)
    assert x.asked == []


@pytest.mark.parametrize("kind", [Lazy, Old, Silent])
def test_memory_that_is_still_its_own_is_copied(kind: Any) -> None:
    x = Silent() if kind is Silent else kind(VALUES, lambda: VALUES)
    for made in (dlbridge.to_numpy(x), dlbridge.to_torch(x).numpy()):
        assert np.array_equal(made, VALUES) and not shares(made, VALUES)
    assert dlbridge.explain(x, "numpy").bytes_copied == 24


def test_only_a_word_on_the_keyword_leads_to_a_call_without_it() -> None:
    def fail() -> Any:
        raise TypeError("its own")

    for kind, asked in ((Lazy, [True]), (Old, ["old"])):
        x = kind(VALUES, fail)
        with pytest.raises(TypeError, match="its own"):
            dlbridge.to_numpy(x)
        assert x.asked == asked


def test_a_cast_an_order_and_a_place_of_ones_own() -> None:
    swapped = VALUES.astype(">f4")
    strided = np.arange(24, dtype="f4").reshape(2, 12)[:, ::-2]
    for array in (VALUES, VALUES.T.copy(order="F"), swapped, strided, VALUES[:0], VALUES[0, 0]):
        array = np.asarray(array)
        x = Lazy(array, lambda array=array: array)
        assert np.array_equal(dlbridge.to_numpy(x), array)
        assert dlbridge.to_numpy(x).dtype == array.dtype.newbyteorder("=")
        assert dlbridge.to_numpy(x, order="C").flags.c_contiguous
        assert np.array_equal(dlbridge.to_numpy(x, dtype="f8"), array)
        room = np.zeros(array.shape, array.dtype.newbyteorder("="))
        assert np.array_equal(dlbridge.to_numpy(x, out=room), array)
        assert np.array_equal(dlbridge.to_numpy(dlbridge.from_dlpack(x)), array)
    assert dlbridge.explain(Lazy(swapped), "numpy").steps == ("gather", "swap bytes")


def test_texts_and_objects_are_as_those_of_an_array() -> None:
    for array in (np.array(["a", "b"]), np.array([1, None]), np.array(["2020"], "M8[s]")):
        x = Lazy(array)
        plan = dlbridge.explain(x, "numpy")
        assert plan.steps == ("gather",) and plan.bytes_copied == array.nbytes and not plan.view
        assert x.asked == []
        made = dlbridge.to_numpy(x)
        assert made.dtype == array.dtype and made.tolist() == array.tolist()
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(x, copy=False)
        with pytest.raises(dlbridge.ConversionRefused, match="of dtype"):
            dlbridge.to_torch(x)
        assert dlbridge.to_torch([x, VALUES])[0] is x
    x = Lazy(np.array(["1973"], "M8[Y]"))
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_torch(x)
    assert dlbridge.to_torch(eval(str(caught.value.fix).partition(" (")[0])).tolist() == [3]


def test_what_is_beside_the_values_is_not_lost() -> None:
    masked = np.ma.masked_array(VALUES, VALUES > 3)
    for x in (Lazy(VALUES, lambda: masked), Silent(masked)):
        with pytest.raises(dlbridge.ConversionRefused, match="the mask would be lost") as caught:
            dlbridge.to_numpy(x)
        assert caught.value.fix == "np.asanyarray(x).filled() (the mask is lost)"
        assert dlbridge.to_numpy(np.asanyarray(x).filled()).shape == (2, 3)
    unmasked = np.ma.masked_array(VALUES)
    assert np.array_equal(dlbridge.to_numpy(Lazy(VALUES, lambda: unmasked)), VALUES)
    with_unit = Lazy()
    with_unit.units, with_unit.magnitude = "m", VALUES  # type: ignore[attr-defined]
    with pytest.raises(dlbridge.ConversionRefused, match="the unit would be lost") as caught:
        dlbridge.to_numpy(with_unit)
    assert caught.value.fix == "x.magnitude (the unit is lost)"
    assert with_unit.asked == []


@pytest.mark.parametrize("made", [None, [1.0], VALUES.tolist(), VALUES[0], VALUES.astype("f8")])
def test_an_array_that_is_other_than_was_said_is_refused(made: Any) -> None:
    x = Lazy(VALUES, lambda: made)
    with pytest.raises(dlbridge.ConversionRefused, match="cannot take a Lazy in"):
        dlbridge.to_numpy(x)


def test_what_an_object_does_not_say_its_array_does() -> None:
    x = Silent()
    x.shape, x.dtype = (float("nan"), 3), VALUES.dtype  # type: ignore[attr-defined]
    for source in (x, Silent()):
        plan = dlbridge.explain(source, "torch")
        assert plan.shape == (2, 3) and plan.dtype == "float32" and plan.bytes_copied == 24
        assert dlbridge.to_torch(source).tolist() == VALUES.tolist()


def test_it_is_a_leaf_of_a_tree_and_the_last_of_its_ways() -> None:
    x = Lazy()
    made = dlbridge.to_numpy({"a": [x, x], "b": 3})
    assert made["a"][0] is made["a"][1] and np.array_equal(made["a"][0], VALUES)
    assert made["b"] == 3
    plans: Any = dlbridge.explain({"a": x}, "torch")
    assert plans["a"].steps == ("gather",)

    class Better(Lazy):
        def __dlpack__(self, **keywords: Any) -> Any:
            return VALUES.__dlpack__(**keywords)

    assert shares(dlbridge.to_numpy(Better()), VALUES)
    x.__dlpack__ = VALUES.__dlpack__  # type: ignore[attr-defined]
    assert shares(dlbridge.to_numpy(x), VALUES)
    with pytest.raises(TypeError):
        dlbridge.to_numpy(Lazy)
