"""TensorFlow: capsules only, legacy only; it ends the process below 64-byte alignment."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

with contextlib.suppress(ImportError):
    import triton  # noqa: F401 where torch imports it after tensorflow, LLVM ends the process
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")


class TestAsTarget(AsTarget):
    target = "tensorflow"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return (result if result.dtype == tf.bool else tf.identity(result)).numpy()


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint16", "float16", "float64", "complex128", "bfloat16")
    read_only = True
    make = staticmethod(tf.constant)

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "reversed": (x[::-1], lambda a: a[::-1]),
            "variable": (tf.Variable(x), lambda a: a),
        }


def test_it_computes_with_what_it_was_given() -> None:
    """Kernels of Eigen end the process on what is not aligned."""
    for start in range(4):
        source = np.arange(64, dtype="f4")[start:]
        result = dlbridge.to(source, "tensorflow")
        np.testing.assert_array_equal((result * 2 + 1).numpy(), source * 2 + 1)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: tf.constant(["a", "b"]), "string"),
        (lambda: tf.ragged.constant([[1], [2, 3]]), "Ragged"),
        (lambda: tf.sparse.from_dense([0, 1]), "Sparse"),
    ],
)
def test_what_it_cannot_say_in_dlpack_is_refused(make: Any, what: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match=what):
        dlbridge.to_numpy(make())


@pytest.mark.parametrize("name", ["int4", "uint4", "float8_e5m2", "float8_e4m3fn"])
def test_what_it_does_not_export_is_refused_with_the_cast_that_keeps_the_values(name: str) -> None:
    start = "float32" if name.startswith("float") else "int8"
    x = tf.cast(tf.constant([0, 1, 2], start), tf.dtypes.as_dtype(name))
    plan = dlbridge.explain(x, "torch")
    assert plan.refused and plan.fix is not None
    assert dlbridge.to_torch(eval(plan.fix)).tolist() == [0, 1, 2]


def test_a_variable_changes_without_its_view() -> None:
    variable = tf.Variable(VALUES)
    view = dlbridge.to_numpy(variable)
    assert not view.flags.writeable
    variable.assign(VALUES + 1)
    np.testing.assert_array_equal(view, VALUES)
