"""What a tree may be made of beside Python's plain dicts, lists and tuples."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import enum
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

from dlbridge.processes.shared import Shared


class Container(NamedTuple):
    """A container, taken apart.

    ``place(i)`` is where its part i is, as one would write it behind the container's name, and
    ``put_together(new)`` a container of the same kind with new parts.
    """

    parts: tuple[Any, ...]
    place: Callable[[int], str]
    put_together: Callable[[tuple[Any, ...]], Any]


class _Kind(NamedTuple):
    """One of Python's containers, and how it is handled whatever a subclass has put over it.

    ``begin(made, x)`` readies a new object for ``put(made, name, value)`` of each member in turn.
    """

    base: Any
    members: Callable[[Any], Iterable[tuple[Any, Any]]]
    begin: Callable[[Any, Any], object]
    put: Callable[[Any, Any, Any], object]
    place: str = "[{!r}]"


def _nothing(made: Any, x: Any) -> None:
    pass


def _in_data(made: Any, name: Any, value: Any) -> None:
    made.data[name] = value


def _in_maps(made: Any, place: int, value: Any) -> None:
    made.maps[place] = value


# A subclass before its base.
_KINDS = (
    _Kind(OrderedDict, OrderedDict.items, _nothing, OrderedDict.__setitem__),
    _Kind(
        defaultdict,
        dict.items,
        lambda made, x: defaultdict.__init__(made, x.default_factory),
        dict.__setitem__,
    ),
    _Kind(Counter, dict.items, _nothing, dict.__setitem__),
    _Kind(dict, dict.items, _nothing, dict.__setitem__),
    _Kind(
        list,
        lambda x: enumerate(list.__iter__(x)),
        lambda made, x: list.extend(made, list.__iter__(x)),
        list.__setitem__,
    ),
    _Kind(
        deque,
        lambda x: enumerate(deque.__iter__(x)),
        lambda made, x: deque.__init__(made, deque.__iter__(x), x.maxlen),
        deque.__setitem__,
    ),
    _Kind(
        UserDict,
        lambda x: x.data.items(),
        lambda made, x: setattr(made, "data", copy.copy(x.data)),
        _in_data,
    ),
    _Kind(
        UserList,
        lambda x: enumerate(x.data),
        lambda made, x: setattr(made, "data", copy.copy(x.data)),
        _in_data,
    ),
    _Kind(
        ChainMap,
        lambda x: enumerate(x.maps),
        lambda made, x: setattr(made, "maps", list(x.maps)),
        _in_maps,
        ".maps[{}]",
    ),
    _Kind(SimpleNamespace, lambda x: vars(x).items(), _nothing, setattr, ".{}"),
)
_DATACLASS = _Kind(object, lambda x: _fields(x).items(), _nothing, object.__setattr__, ".{}")


def parts_of(x: Any) -> Container | None:
    """The container, taken apart, or None where ``x`` is a leaf."""
    if isinstance(x, enum.Enum):
        return None  # a constant, whatever its value is
    if isinstance(x, tuple):
        return _of_tuple(x, type(x))
    for kind in _KINDS:
        if isinstance(x, kind.base):
            return _of_kind(x, kind)
    if isinstance(x, MappingProxyType):
        inner = parts_of(x.copy())
        if inner is None:
            return None
        together = inner.put_together
        return inner._replace(put_together=lambda new: MappingProxyType(together(new)))
    if isinstance(x, Shared):  # it stands for its tree
        return Container((x.tree,), lambda i: ".tree", lambda new: new[0])
    registered = _by_optree(x) or _by_torch(x)
    if registered is not None:
        return registered
    return _of_kind(x, _DATACLASS) if _has_fields(x) else None


def _of_kind(x: Any, kind: _Kind) -> Container:
    members = tuple(kind.members(x))
    attributes = _attributes(x)
    # Some classes keep a member as an attribute too, as transformers' outputs do: it stays both.
    both = {
        name
        for name, value in (members if attributes else ())
        if isinstance(name, str) and attributes.get(name, x) is value
    }
    fields = () if kind is _DATACLASS else tuple(_fields(x).items())
    beside = tuple((name, value) for name, value in fields if name not in both)

    def place(i: int) -> str:
        if i < len(members):
            return kind.place.format(members[i][0])
        return f".{beside[i - len(members)][0]}"

    def put_together(new: tuple[Any, ...]) -> Any:
        made = _copied(x, kind)
        values = iter(new)
        for name, _ in members:
            value = next(values)
            kind.put(made, name, value)
            if name in both:
                vars(made)[name] = value
        for name, _ in beside:
            object.__setattr__(made, name, next(values))
        return made

    return Container(tuple(value for _, value in (*members, *beside)), place, put_together)


def _has_fields(x: Any) -> bool:
    return dataclasses.is_dataclass(x) or hasattr(type(x), "__attrs_attrs__")


def _fields(x: Any) -> dict[str, Any]:
    """What a dataclass, or a class of attrs, has: not all need be set, nor be arguments of it."""
    if not _has_fields(x):
        return {}
    declared = dataclasses.fields(x) if dataclasses.is_dataclass(x) else x.__attrs_attrs__
    names = (field.name for field in declared)
    return {name: getattr(x, name) for name in names if hasattr(x, name)}


def _attributes(x: Any) -> dict[str, Any]:
    """Those of the object's own; of a dict whose attributes are its items, none."""
    found: dict[str, Any] = getattr(x, "__dict__", {})
    return {} if found is x else found


def _copied(x: Any, kind: _Kind) -> Any:
    """A shallow copy; of its members perhaps none yet, if the class has no way of its own to copy.

    Without a call of the class, which may want other arguments: Python's own ways to copy an
    OrderedDict, a defaultdict and a deque call it, and forget its attributes.
    """
    cls = type(x)
    own_ways = ("__copy__", "__reduce__", "__reduce_ex__")
    try:
        if any(getattr(cls, n, None) is not getattr(kind.base, n, None) for n in own_ways):
            made = copy.copy(x)
            if kind.base in (UserDict, UserList, ChainMap):
                kind.begin(made, x)  # it may share what holds the members
        else:
            made = kind.base.__new__(cls)
            _take_attributes(made, x)
            kind.begin(made, x)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise _no_copy(cls, f"copying it fails: {type(error).__name__}: {error}") from error
    if made is x or type(made) is not cls:
        raise _no_copy(cls, f"its copy is {'itself' if made is x else type(made).__name__}")
    return made


def _no_copy(cls: type, why: str) -> TypeError:
    return TypeError(
        f"a {cls.__module__}.{cls.__qualname__} cannot be rebuilt around other members: {why}; "
        "convert its members one by one"
    )


def _take_attributes(made: Any, x: Any) -> None:
    if getattr(x, "__dict__", None) is x:
        made.__dict__ = made  # the dict whose items are its attributes
    elif _attributes(x):
        vars(made).update(vars(x))
    for name in copyreg._slotnames(type(x)):  # type: ignore[attr-defined]
        if hasattr(x, name):
            object.__setattr__(made, name, getattr(x, name))


def _of_tuple(x: tuple[Any, ...], cls: Any) -> Container:
    parts = tuple(tuple.__iter__(x))
    names = getattr(cls, "_fields", None)

    def put_together(new: tuple[Any, ...]) -> Any:
        if hasattr(cls, "n_sequence_fields"):  # a struct sequence, as torch.max(x, 0) returns
            hidden: Any = x.__reduce__()[1][1]  # fields that it does not count among its parts
            return cls(new, hidden)
        made = tuple.__new__(cls, new)
        _take_attributes(made, x)
        return made

    return Container(parts, lambda i: f".{names[i]}" if names else f"[{i}]", put_together)


def _by_optree(x: Any) -> Container | None:
    optree = sys.modules.get("optree")
    if optree is None:
        return None
    # No public name lists the namespaces that a class is a node in, beside the one of all.
    keys = tuple(getattr(optree.registry, "_NODETYPE_REGISTRY", ()))
    own = (key[0] for key in keys if isinstance(key, tuple) and key[1] is type(x))
    found = (each for each in ("", *own) if not optree.tree_is_leaf(x, namespace=each))
    namespace = next(found, None)
    if namespace is None:
        return None
    parts, metadata, places, put_together = optree.tree_flatten_one_level(x, namespace=namespace)
    return Container(
        tuple(parts), lambda i: f"[{places[i]!r}]", lambda new: put_together(metadata, new)
    )


def _by_torch(x: Any) -> Container | None:
    pytree = sys.modules.get("torch.utils._pytree")
    node = None if pytree is None else pytree.SUPPORTED_NODES.get(type(x))
    if node is None:
        return None
    parts, context = node.flatten_fn(x)
    return Container(
        tuple(parts), lambda i: f"[{i}]", lambda new: node.unflatten_fn(list(new), context)
    )
