"""Trees of arguments and answers: the walker, and what is asked of their leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from dlbridge import _core, libraries
from dlbridge._policy import Policy
from dlbridge._targets import convert_to, library_for

# Whether it is an array or a tensor of any library. Buffers and NumPy's scalars are not.
is_array = _core.is_array

# mapped(tree, function): the tree with function(leaf) for each leaf. A part in which nothing
# changes stays the same object.
mapped = _core.map_leaves


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves, in the order in which ``mapped`` meets them."""
    found: list[Any] = []

    def keep(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    mapped(tree, keep)
    return iter(found)


def library_of(array: Any) -> str | None:
    """The library's name, as ``to`` takes it: its base's, where the class is of one's own. None
    where no such library takes arrays."""
    known = _core.library_of(array)
    if known is not None:
        row = libraries.named(known)
        return known if row is not None and row.is_target else None
    modules = (base.__module__.partition(".")[0] for base in type(array).__mro__)
    return next((name for name in modules if hasattr(sys.modules.get(name), "from_dlpack")), None)


def converted(
    tree: Any,
    target: Any,
    *,
    policy: Policy | str | None = None,
    pairs: list[tuple[Any, Any]] | None = None,
) -> Any:
    """The tree with its arrays in ``target``; every other leaf stays as it is.

    One wait for all that comes from devices. An array that occurs twice crosses once. ``pairs`` is
    given each array and what became of it.
    """
    library = library_for(target)
    torch: Any = sys.modules.get("torch")
    to_host = torch is not None and library.name == "numpy"
    done: dict[int, tuple[Any, Any]] = {}
    on_their_way: dict[int, Any] = {}

    def convert(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        if id(leaf) not in done:
            if to_host and isinstance(leaf, torch.Tensor) and not leaf.is_cpu:
                result = _core.to_numpy(leaf, policy=policy, async_=True)
                on_their_way[id(result)] = leaf
            else:
                result = convert_to(library, leaf, policy, leaf=True)
            done[id(leaf)] = leaf, result
        return done[id(leaf)][1]

    def arrived(leaf: Any) -> Any:
        if id(leaf) not in on_their_way:
            return leaf
        result = leaf.result()
        source = on_their_way[id(leaf)]
        done[id(source)] = source, result
        return result

    result = mapped(tree, convert)
    if on_their_way:
        result = mapped(result, arrived)
    if pairs is not None:
        pairs += done.values()
    return result
