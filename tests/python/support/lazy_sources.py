"""Objects that have nothing better than __array__."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

VALUES = np.arange(6, dtype="f4").reshape(2, 3)


class Lazy:
    """Says what it is, and makes arrays when asked: as `make` does, which is told of `copy`."""

    def __init__(self, array: Any = VALUES, make: Callable[[], Any] | None = None) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self.make = array.copy if make is None else make
        self.asked: list[Any] = []

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.asked.append(copy)
        return self.make()


class Old(Lazy):
    """Of before NumPy 2."""

    def __array__(self, dtype: Any = None) -> Any:  # type: ignore[override]
        self.asked.append("old")
        return self.make()


class Silent:
    """Has an array, and does not say which."""

    def __init__(self, array: Any = VALUES) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array
