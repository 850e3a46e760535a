"""SciPy: its sparse arrays and matrices cross by their parts, or are densified by the policy."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlbridge import Capabilities, ConversionRefused, Library, Parts
from dlbridge._errors import refused
from dlbridge.libraries import COMPLEX, INTEGERS, UNSIGNED


class _Dense:
    """The array that a sparse one stands for, made by SciPy when it is asked for."""

    def __init__(self, sparse: Any) -> None:
        self._sparse = sparse
        self.shape = sparse.shape
        self.dtype = sparse.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._sparse.toarray()


class Coords:
    """The indices of a COO array, of which SciPy has an array for each dimension, as one array."""

    def __init__(self, rows: tuple[Any, ...]) -> None:
        self._rows = rows
        self.shape = (len(rows), len(rows[0]))
        self.dtype = np.dtype(np.int64)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.stack(self._rows).astype(self.dtype, copy=False)


Coords.__module__ = "scipy_coords"  # told of by a row of their own, in SciPy's words


def _is_sparse(x: Any) -> bool:
    from scipy.sparse import issparse

    return bool(issparse(x))


def _parts(x: Any) -> Parts | None:
    if x.format == "coo":
        rows = x.coords if hasattr(x, "coords") else (x.row, x.col)  # before SciPy 1.13
        if any(row.dtype.kind != "i" or row.shape != x.data.shape for row in rows):
            reason = "its indices are not as many integers as there are values"
            raise refused(f"cannot take a scipy.{type(x).__name__} in", reason)
        return Parts("coo", x.shape, (x.data, _indices(rows)))
    if x.format in ("csr", "csc", "bsr") and len(x.shape) == 2:
        return Parts(x.format, x.shape, (x.data, x.indptr, x.indices))
    return None


def _indices(rows: tuple[Any, ...]) -> Any:
    """The array that the rows are views of, as those that came from torch are, or one of them."""
    base = rows[0].base
    whole = (len(rows), len(rows[0]))
    if isinstance(base, np.ndarray) and base.shape == whole and base.dtype == np.int64:
        same = all(_place(row) == _place(own) for row, own in zip(rows, base, strict=True))
        return base if same else Coords(rows)
    return Coords(rows)


def _place(array: Any) -> tuple[Any, ...]:
    return array.ctypes.data, array.shape, array.strides, array.dtype


def _empty(parts: Parts) -> Any:
    """Filled by its attributes: SciPy's own calls narrow the indices, which is a copy."""
    from scipy import sparse

    blocks = {"blocksize": parts.arrays[0].shape[1:]} if parts.layout == "bsr" else {}
    made = getattr(sparse, f"{parts.layout}_array")(parts.shape, **blocks)
    made.data = parts.arrays[0]
    return made


def _coo(parts: Parts) -> Any:
    values, indices = parts.arrays
    limits = np.array(parts.shape)[:, None]
    if indices.dtype != np.int64 or indices.shape != (len(parts.shape), *values.shape):
        raise ValueError(f"indices of {indices.shape} for values of {values.shape}")
    if ((indices < 0) | (indices >= limits)).any():
        raise ValueError(f"an index is outside of the shape {parts.shape}")
    made = _empty(parts)
    made.has_canonical_format = parts.canonical
    if hasattr(made, "coords"):
        made.coords = tuple(indices)
    else:  # before SciPy 1.13
        made.row, made.col = indices
    return made


def _compressed(parts: Parts) -> Any:
    values, pointers, indices = parts.arrays
    if pointers.dtype != indices.dtype or pointers.dtype not in (np.int32, np.int64):
        raise ValueError(f"pointers of {pointers.dtype} for indices of {indices.dtype}")
    made = _empty(parts)
    made.indptr, made.indices = pointers, indices
    made.check_format()
    # What SciPy does not look at where there are no values, and would cut off.
    if pointers[-1] != len(values) or (np.diff(pointers) < 0).any():
        raise ValueError(f"the pointers do not lead through {len(values)} values")
    return made


def _refusal(x: Any, error: Exception) -> ConversionRefused | None:
    if "sorted and distinct" not in str(error):
        return None
    blocks = "blocksize=x.blocksize" if x.format == "bsr" else ""
    reason = "its indices are not in order, or occur twice, and torch's have to be sorted"
    fix = f"x.tocoo().to{x.format}({blocks})"
    return refused(f"cannot view a scipy.{type(x).__name__} as torch", reason, fix)


ROWS = (
    Library(
        name="scipy",
        conditions=lambda x: ("sparse",) if _is_sparse(x) else (),
        read=lambda x: _Dense(x) if _is_sparse(x) else x,
        refusal=_refusal,
        fixes={"sparse": "x.toarray()"},
        parts=_parts,
        layouts={"coo": _coo, **dict.fromkeys(("csr", "csc", "bsr"), _compressed)},
        # What is dense is NumPy's to SciPy too.
        capabilities=Capabilities(
            result="numpy.ndarray",
            dtypes=("bool", *INTEGERS, *UNSIGNED, "float32", "float64", *COMPLEX),
            read_only="honours",
        ),
        take=lambda array: array,
        handed="array",
        address=lambda made: int(made.ctypes.data),
    ),
    Library(name="scipy_coords", object="scipy.coo_array.coords", fixes={"lazy": "x.tocsr()"}),
)
