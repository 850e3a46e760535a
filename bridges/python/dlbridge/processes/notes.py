"""The note of a message: everything of a tree but its tensors."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import pickle
import sys
import types
from typing import Any, ClassVar

import numpy as np

from dlbridge._core import ManagedTensor
from dlbridge._errors import refused

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


def _tuple_of(cls: type, items: tuple[Any, ...], more: Any) -> Any:
    """A named tuple, without a call of its class, which may want arrays where the tensors are."""
    made: Any = tuple.__new__(cls, items)
    if more:
        made.__dict__.update(more)
    return made


class _Writer(pickle.Pickler):
    def __init__(self, file: Any, tensors: list[ManagedTensor]) -> None:
        super().__init__(file, 5)
        self._places = {id(tensor): i for i, tensor in enumerate(tensors)}

    def persistent_id(self, x: Any) -> int | None:
        return self._places.get(id(x)) if type(x) is ManagedTensor else None

    def reducer_override(self, x: Any) -> Any:
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return _tuple_of, (type(x), tuple(x), getattr(x, "__dict__", None))
        if isinstance(x, np.ndarray):
            raise refused(
                "cannot send a numpy.ndarray as it is",
                f"of its dtype {x.dtype} there are no tensors",
                "dlbridge.dumps(x)",
            )
        if isinstance(x, (np.str_, np.bytes_)):
            return (str, (str(x),)) if isinstance(x, np.str_) else (bytes, (bytes(x),))
        if isinstance(x, enum.Enum):  # by getattr in CPython 3.11.2
            return type(x), (x.value,)
        known = x if isinstance(x, type) else type(x)
        if x is _tuple_of or _is_known(known):
            return NotImplemented
        raise TypeError(
            f"a tree that is sent holds tensors, numbers, texts and containers, and no "
            f"{known.__module__}.{known.__qualname__}; use dlbridge.dumps() for other objects"
        )


class _NamesClass(Exception):
    """A note that takes more care: whoever wrote it may mean to change the class."""


class _WithTensors:
    def __init__(self, note: bytes, tensors: list[ManagedTensor]) -> None:
        super().__init__(io.BytesIO(note))  # type: ignore[call-arg]
        self._tensors = tensors

    def persistent_load(self, place: Any) -> Any:
        return self._tensors[place]


class _Reader(_WithTensors, pickle.Unpickler):
    """Of what names nothing: at C speed."""

    def find_class(self, module: str, name: str, /) -> Any:
        raise _NamesClass


# pickle's own in Python, whose steps can be looked at.
_Unpickler: Any = pickle._Unpickler


class _CarefulReader(_WithTensors, _Unpickler):  # type: ignore[misc]
    """Of the classes of containers: makes objects of them, and changes and calls nothing else."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == (__name__, _tuple_of.__name__):
            return _tuple_of
        found: Any = sys.modules.get(module)
        for part in name.split("."):  # in what is there: a module may have code for other names
            found = vars(found).get(part) if isinstance(found, (type, types.ModuleType)) else None
        if _is_known(found):
            return found
        raise pickle.UnpicklingError(
            f"the tree that was sent holds a {module}.{name}, which is no container that is known "
            "here; import its module before recv()"
        )

    def _load_build(self) -> None:
        if isinstance(self.stack[-2], (type, types.FunctionType)):
            raise pickle.UnpicklingError("the tree that was sent would change a class")
        super().load_build()

    def _load_reduce(self) -> None:
        self._require_written_out(*self.stack[-2:])
        super().load_reduce()

    def _load_new(self) -> None:
        self._require_written_out(*self.stack[-2:])
        super().load_newobj()

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("the tree that was sent is damaged")

    @staticmethod
    def _require_written_out(made: Any, arguments: Any) -> None:
        """Bytes and sets by their number alone could fill all memory."""
        if made not in (range, slice, complex) and any(
            isinstance(each, range) or (isinstance(each, int) and made in _VALUES)
            for each in arguments
        ):
            raise pickle.UnpicklingError("the tree that was sent has values that nobody wrote out")

    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_new
    for _never_written in (pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST):
        dispatch[_never_written[0]] = _refuse


def written(x: Any, tensors: list[ManagedTensor]) -> bytes:
    """``x``, with the place in ``tensors`` for each of them."""
    file = io.BytesIO()
    _Writer(file, tensors).dump(x)
    return file.getvalue()


def read(note: bytes, tensors: list[ManagedTensor]) -> Any:
    """What ``written`` was given: tensors, values and containers, and nothing else is called."""
    try:
        try:
            return _Reader(note, tensors).load()
        except _NamesClass:
            return _CarefulReader(note, tensors).load()
    except (EOFError, IndexError) as error:  # an EOFError of recv() is that of the socket
        raise pickle.UnpicklingError("the tree that was sent is damaged") from error
