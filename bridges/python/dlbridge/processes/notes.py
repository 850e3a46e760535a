"""The note of a message: everything of a tree but its tensors."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import pickle
import sys
import types
from typing import Any

import numpy as np

from dlbridge._core import ManagedTensor

# What a tree's containers may be; their classes are looked up by name, and only where they are
# imported already.
_CONTAINERS = (
    dict,
    list,
    tuple,
    collections.deque,
    collections.UserDict,
    collections.UserList,
    collections.ChainMap,
    types.SimpleNamespace,
    enum.Enum,
)
_VALUES = (bool, int, float, complex, str, bytes, bytearray, set, frozenset, slice, range)


def _is_known(found: Any) -> bool:
    return isinstance(found, type) and (
        issubclass(found, _CONTAINERS)
        or found in _VALUES
        or dataclasses.is_dataclass(found)
        or "__attrs_attrs__" in vars(found)
    )


class _Writer(pickle.Pickler):
    def __init__(self, file: Any, tensors: list[ManagedTensor]) -> None:
        super().__init__(file, 5)
        self._places = {id(tensor): i for i, tensor in enumerate(tensors)}

    def persistent_id(self, x: Any) -> int | None:
        return self._places.get(id(x)) if type(x) is ManagedTensor else None

    def reducer_override(self, x: Any) -> Any:
        if isinstance(x, (np.str_, np.bytes_)):
            return (str, (str(x),)) if isinstance(x, np.str_) else (bytes, (bytes(x),))
        known = x if isinstance(x, type) else type(x)
        if _is_known(known):
            return NotImplemented
        raise TypeError(
            f"a tree that is sent holds tensors, numbers, texts and containers, and no "
            f"{known.__module__}.{known.__qualname__}; use dlbridge.dumps() for other objects"
        )


class _Reader(pickle.Unpickler):
    def __init__(self, note: bytes, tensors: list[ManagedTensor]) -> None:
        super().__init__(io.BytesIO(note))
        self._tensors = tensors

    def persistent_load(self, place: Any) -> Any:
        return self._tensors[place]

    def find_class(self, module: str, name: str, /) -> Any:
        found: Any = sys.modules.get(module)
        for part in name.split("."):  # in what is there: a module may have code for other names
            found = vars(found).get(part) if isinstance(found, (type, types.ModuleType)) else None
        if _is_known(found):
            return found
        raise pickle.UnpicklingError(
            f"the tree that was sent holds a {module}.{name}, which is no container that is known "
            "here; import its module before recv()"
        )


def written(x: Any, tensors: list[ManagedTensor]) -> bytes:
    """``x``, with the place in ``tensors`` for each of them."""
    file = io.BytesIO()
    _Writer(file, tensors).dump(x)
    return file.getvalue()


def read(note: bytes, tensors: list[ManagedTensor]) -> Any:
    """What ``written`` was given: tensors, values and containers, and nothing else is called."""
    return _Reader(note, tensors).load()
