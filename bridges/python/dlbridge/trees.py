"""Trees of arguments and answers: the walker, and what is asked of their leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from dlbridge import _core, libraries
from dlbridge._policy import Policy
from dlbridge._registry import library_for, target_of

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
    met: dict[int, tuple[Any, Any]] | None = None,
) -> Any:
    """The tree with its arrays in ``target``; every other leaf stays as it is.

    One wait for all that comes from devices. An array that occurs twice crosses once. ``met`` is
    given each array and what became of it, by the array's id, in their order.
    """
    row = target_of(library_for(target))
    return _core.cross_arrays(tree, row, policy, {} if met is None else met)
