"""SciPy: its sparse arrays and matrices are refused, or densified where the policy says so."""

from typing import Any

from dlbridge import Library


class _Dense:
    """The array that a sparse one stands for, made by SciPy when it is asked for."""

    def __init__(self, sparse: Any) -> None:
        self._sparse = sparse
        self.shape = sparse.shape
        self.dtype = sparse.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._sparse.toarray()


def _is_sparse(x: Any) -> bool:
    from scipy.sparse import issparse

    return bool(issparse(x))


ROWS = (
    Library(
        name="scipy",
        conditions=lambda x: ("sparse",) if _is_sparse(x) else (),
        read=lambda x: _Dense(x) if _is_sparse(x) else x,
        fixes={"sparse": "x.toarray()"},
    ),
)
