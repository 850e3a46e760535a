"""Functions that are objects of ours, sent between processes as functions are."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

_owners: WeakKeyDictionary[Callable[[], Any], ref[Wrapped]] = WeakKeyDictionary()


class Wrapped:
    """A function around another, which goes where the other could go.

    By its name, where it is found by it; by its parts elsewhere. What cloudpickle sends by value,
    as it does with a notebook's functions, it tells by a function's name and module: so the name
    that is sent is of a function too, ``remade``.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):  # as no classmethod is: that goes above
            raise TypeError(f"expected a function, not {type(function).__name__}")
        self.__name__ = self.__qualname__ = type(function).__name__  # functools.partial has none
        functools.update_wrapper(cast(Callable[..., Any], self), function)
        self._remade: Callable[[], Any] | None = None

    def parts(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What makes another of the same, and its arguments."""
        raise NotImplementedError

    @property
    def remade(self) -> Callable[[], Any]:
        """Makes another of the same, and is found by its name where this one is."""
        if self._remade is None:
            make, arguments = self.parts()

            def remade() -> Any:
                return make(*arguments)

            remade.__module__ = self.__module__
            remade.__qualname__ = f"{self.__qualname__}.remade"
            _owners[remade] = ref(self)
            self._remade = remade
        return self._remade

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _by_name(self) is not self:
            return self.parts()
        # Before the fourth protocol names have no dots: what stands before one is pickled first.
        return (_received, (self.remade,)) if protocol >= 4 else self.__qualname__

    def __copy__(self) -> Wrapped:
        return self

    def __deepcopy__(self, memo: Any) -> Wrapped:
        return self

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None or isinstance(self.__wrapped__, staticmethod):
            return self
        return types.MethodType(self, instance)  # type: ignore[arg-type]


def _by_name(function: Wrapped) -> Any:
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def _received(remade: Callable[[], Any]) -> Any:
    """The very same where it came by its name."""
    owner = _owners.get(remade)
    return remade() if owner is None else owner()
