"""What a tree may be made of beside Python's plain dicts, lists and tuples."""

from __future__ import annotations

import collections
import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Any

# The parts, where each is (as one would write it behind the container's name), and the function
# that puts new parts together in the same way.
Parts = tuple[tuple[Any, ...], tuple[str, ...], Callable[[tuple[Any, ...]], Any]]


def parts_of(x: Any) -> Parts | None:
    """The parts of a container, or None where ``x`` is a leaf."""
    kind = type(x)
    if isinstance(x, tuple):
        return _of_tuple(x, kind)
    if kind in (collections.OrderedDict, collections.defaultdict):
        return _of_dict(x)
    registered = _by_optree(x) or _by_torch(x, kind)
    if registered is not None:
        return registered
    if dataclasses.is_dataclass(x):
        return _of_dataclass(x)
    if isinstance(x, dict):
        return _of_dict(x)
    if isinstance(x, list):
        return tuple(x), _numbered(len(x)), _into_copy(x, range(len(x)))
    return None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"[{i}]" for i in range(count))


def _by_optree(x: Any) -> Parts | None:
    optree = sys.modules.get("optree")
    if optree is None or optree.tree_is_leaf(x):
        return None
    parts, metadata, places, put_together = optree.tree_flatten_one_level(x)
    names = tuple(f"[{place!r}]" for place in places)
    return tuple(parts), names, lambda new: put_together(metadata, new)


def _by_torch(x: Any, kind: type) -> Parts | None:
    pytree = sys.modules.get("torch.utils._pytree")
    if pytree is None:
        return None
    node = pytree.SUPPORTED_NODES.get(kind)
    if node is None:
        return None
    children, context = node.flatten_fn(x)
    parts = tuple(children)
    return parts, _numbered(len(parts)), lambda new: node.unflatten_fn(list(new), context)


def _of_tuple(x: tuple[Any, ...], kind: Any) -> Parts | None:
    if hasattr(kind, "_fields") and hasattr(kind, "_make"):
        return tuple(x), tuple(f".{name}" for name in kind._fields), kind._make
    if hasattr(kind, "n_sequence_fields"):
        return tuple(x), _numbered(len(x)), kind  # a struct sequence, as torch.max(x, 0) returns
    return None  # torch.Size and its like are values, though optree takes them apart


def _of_dict(x: dict[Any, Any]) -> Parts:
    names = tuple(x)
    return tuple(x.values()), tuple(f"[{name!r}]" for name in names), _into_copy(x, names)


def _of_dataclass(x: Any) -> Parts:
    names = tuple(field.name for field in dataclasses.fields(x) if hasattr(x, field.name))

    def put_together(new: tuple[Any, ...]) -> Any:
        # Not by the constructor: fields may be frozen, or no arguments of it.
        made = copy.copy(x)
        for name, value in zip(names, new, strict=True):
            object.__setattr__(made, name, value)
        return made

    parts = tuple(getattr(x, name) for name in names)
    return parts, tuple(f".{name}" for name in names), put_together


def _into_copy(x: Any, names: Iterable[Any]) -> Callable[[tuple[Any, ...]], Any]:
    # A defaultdict keeps its factory, an OrderedDict its order, a class of one's own the rest.
    def put_together(new: tuple[Any, ...]) -> Any:
        made = copy.copy(x)
        for name, value in zip(names, new, strict=True):
            made[name] = value
        return made

    return put_together
