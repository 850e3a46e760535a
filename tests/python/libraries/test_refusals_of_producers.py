"""A producer's own refusal becomes ours where its row knows a way out; law 5 holds elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlbridge


class ArrowTypeError(TypeError):
    pass


class Kind(str):
    bit_width = 32
    value_type = "double"


class Int64Array:
    """As pyarrow's arrays: its kind and its nulls are told, and ``__dlpack__`` refuses them."""

    __module__ = "pyarrow.lib"

    def __init__(self, kind: str, nulls: int = 0, error: Any = None) -> None:
        self.type = Kind(kind)
        self.null_count = nulls
        self.error = error
        self.asked = 0

    def __dlpack__(self, **keywords: Any) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return np.arange(2).__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


FIXES = {
    ("int64", 1): "x.fill_null(0) (nulls become 0)",
    ("double", 1): 'x.fill_null(float("nan")) (nulls become float("nan"))',
    ("bool", 0): 'x.cast("uint8") (False and True become 0 and 1)',
    ("bool", 2): 'x.fill_null(False).cast("uint8") (nulls become False, False and True become '
    "0 and 1)",
    ("date32[day]", 0): 'x.cast("int32") (the unit is lost)',
    ("decimal128(2, 1)", 0): 'x.cast("float64") (values are rounded)',
    ("dictionary<values=double>", 0): "x.dictionary_decode()",
    ("string", 0): None,
    ("string", 1): None,
    ("list<item: int64>", 0): None,
}


@pytest.mark.parametrize("kind, nulls", FIXES)
def test_a_refusal_of_pyarrows_is_told_with_its_fix(kind: str, nulls: int) -> None:
    own = ArrowTypeError("Can only use DLPack on other arrays.")
    x = Int64Array(kind, nulls, own)
    for convert in (
        dlbridge.to_numpy,
        dlbridge.to_torch,
        dlbridge.from_dlpack,
        dlbridge.capsule,
    ):
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            convert(x)
        error = caught.value
        assert error.__cause__ is own and "Can only use DLPack on other arrays" in str(error)
        assert "pyarrow.Int64Array" in str(error)
        assert error.fix == FIXES[kind, nulls]
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.accepts("numpy")(lambda x: x)(x)
    assert caught.value.__cause__ is own
    plan = dlbridge.explain(x, "numpy")
    assert plan.refused and plan.fix == FIXES[kind, nulls]
    plans: Any = dlbridge.explain({"a": x, "b": np.ones(1)}, "numpy")
    assert plans["a"].refused and not plans["b"].refused


@pytest.mark.parametrize("kind", ["int64", "bool"])
@pytest.mark.parametrize("error", [RuntimeError("mine"), MemoryError(), KeyboardInterrupt()])
def test_what_says_nothing_of_the_type_is_the_same_object(kind: str, error: Any) -> None:
    with pytest.raises(type(error)) as caught:
        dlbridge.to_numpy(Int64Array(kind, 0, error))
    assert caught.value is error


def test_an_array_of_numbers_is_asked_once() -> None:
    x = Int64Array("int64")
    assert dlbridge.to_numpy(x).tolist() == [0, 1] and x.asked == 1
    # What a later release can hand out passes.
    assert dlbridge.to_numpy(Int64Array("bool")).tolist() == [0, 1]
