"""pandas: series, indices and frames.

Over NumPy they are read as its arrays: Arrow's way takes a NaN for a null. What is over Arrow, or
nullable, comes by Arrow's interface, for which pandas needs pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dlbridge import Capabilities, Library
from dlbridge._errors import refused
from dlbridge.libraries import FLOATS, INTEGERS, UNSIGNED


def _types(x: Any) -> list[Any]:
    return list(dict.fromkeys(x.dtypes)) if hasattr(x, "columns") else [x.dtype]


def _is_over_numpy(x: Any) -> bool:
    """By its type; what stands for a frame stands for every column of it."""
    return all(isinstance(dtype, np.dtype) for dtype in _types(x))


def _conditions(x: Any) -> Iterable[str]:
    if hasattr(x, "columns") and len(x) and len(x.columns) > 1 and _is_over_numpy(x):
        row = x.iloc[:1]  # of the same blocks
        if not np.may_share_memory(row.to_numpy(), row.iloc[:, 0].to_numpy()):
            return ("copies_out",)
    return ()


def _read(x: Any) -> Any:
    import pandas

    dense = "x.sparse.to_dense()"
    if isinstance(x, pandas.api.extensions.ExtensionArray):
        x = pandas.Series(x, copy=False)
        dense = "x.to_dense()"
    if not isinstance(x, (pandas.Series, pandas.Index, pandas.DataFrame)):
        raise TypeError(f"a pandas.{type(x).__name__} is no array")
    types = _types(x)
    if any(isinstance(dtype, pandas.SparseDtype) for dtype in types):
        reason = "its values lie apart from the gaps between them"
        raise refused(f"cannot take a sparse pandas.{type(x).__name__} in", reason, dense)
    if len(types) > 1:
        raise refused(
            f"cannot take a pandas.{type(x).__name__} in",
            f"its columns are of {', '.join(map(str, types))}, and a tensor has one type",
            _columns(x),
        )
    if _is_over_numpy(x):
        return x.to_numpy()
    # An Index has no way of its own.
    return x if hasattr(x, "__arrow_c_stream__") else x.to_series()


def _columns(x: Any) -> str:
    unique = x.columns.is_unique
    return "dict(x.items())" if unique else "[y for _, y in x.items()] (without their names)"


def _fix(x: Any) -> str | None:
    types = _types(x)
    if all(getattr(dtype, "kind", "") in ("M", "m") for dtype in types):
        return 'x.astype("int64") (the unit is lost)'
    if hasattr(x, "levels"):
        return "x.to_frame()"
    if hasattr(x, "columns"):
        return _columns(x)
    if isinstance(types[0], np.dtype):
        return 'x.astype("float64") (if its items are numbers)'
    if str(types[0]).startswith("period"):
        return 'x.astype("int64") (the unit is lost)'
    categories = getattr(types[0], "categories", None)
    of = types[0] if categories is None else categories.dtype
    if str(of).startswith(("str", "object", "large_string")):
        return "x.factorize()[0] (numbers for the texts)"
    if categories is None:
        return None
    if of.kind in ("M", "m"):
        return 'x.astype(x.dtype.categories.dtype).astype("int64") (the unit is lost)'
    if of.kind == "O":  # periods, intervals
        return "x.factorize()[0] (numbers for the categories)"
    return "np.asarray(x)"


def _to_pandas(array: Any) -> Any:
    import pandas

    return (pandas.Series if array.ndim == 1 else pandas.DataFrame)(array, copy=False)


ROWS = (
    Library(
        name="pandas",
        read=_read,
        conditions=_conditions,
        fix_for=_fix,
        fixes={
            "nulls": "x.fillna({zero}) (nulls become {zero})",
            "read_only": "dlbridge.to_numpy(x, copy=True)",
        },
        capabilities=Capabilities(
            result="pandas.Series or DataFrame",
            dtypes=("bool", *INTEGERS, *UNSIGNED, *FLOATS),
            min_dimensions=1,
            max_dimensions=2,
            read_only="honours",
        ),
        take=_to_pandas,
        handed="array",
        address=lambda made: int(made.to_numpy().ctypes.data),
        quirks={"copies_out": "columns that lie apart are copied by pandas itself"},
    ),
)
