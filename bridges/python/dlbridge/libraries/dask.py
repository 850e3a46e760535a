"""Dask: lazy arrays, which hide in an array of NumPy's what their chunks mean beside numbers."""

from typing import Any

import numpy as np

from dlbridge import Library
from dlbridge._errors import refused


def _read(x: Any) -> Any:
    kind = type(getattr(x, "_meta", None))  # of the chunks
    if type(x).__name__ == "Array" and kind is not np.ndarray and not issubclass(kind, np.generic):
        reason = f"its chunks are of {kind.__name__}, of which it would show the bare values"
        raise refused("cannot take a dask.Array in", reason, "x.compute()")
    return x


ROWS = (Library(name="dask", object="dask.Array", read=_read),)
