"""Dask: lazy arrays, which hide in an array of NumPy's what their chunks mean beside numbers."""

import sys
from typing import Any

import numpy as np

from dlbridge import Library, explain
from dlbridge._errors import refused


def _read(x: Any) -> Any:
    if isinstance(x, sys.modules["dask.array"].Array):
        chunk = x._meta  # of no elements
        if isinstance(chunk, np.ma.MaskedArray) or explain(chunk, "numpy").refused:
            kind = type(chunk).__name__
            reason = f"its chunks are of {kind}, of which it would show the bare values"
            raise refused("cannot take a dask.Array in", reason, "x.compute()")
    return x


ROWS = (Library(name="dask", read=_read),)
