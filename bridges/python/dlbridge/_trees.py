"""Trees of arguments: dictionaries, lists, tuples, named tuples and dataclasses of arrays."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dlbridge import _core
from dlbridge._policy import Policy
from dlbridge._targets import to

_DOORS = (
    "__dlpack_c_exchange_api__",
    "__dlpack__",
    "__cuda_array_interface__",
    "__array_interface__",
)


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array or a tensor of any library. Buffers and NumPy's scalars are not."""
    if isinstance(x, np.ndarray):
        return True
    kind = type(x)
    return not isinstance(x, np.generic) and any(hasattr(kind, door) for door in _DOORS)


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The tree with ``function(leaf)`` for each leaf. A part that stays as it is is not copied."""
    kind = type(tree)
    if isinstance(tree, dict):
        items = {key: mapped(value, function) for key, value in tree.items()}
        if all(items[key] is tree[key] for key in tree):
            return tree
        if kind is dict:
            return items
        copied = tree.copy()  # a defaultdict keeps its factory, an OrderedDict its order
        copied.update(items)
        return copied
    if isinstance(tree, (list, tuple)):
        parts = [mapped(each, function) for each in tree]
        if all(new is old for new, old in zip(parts, tree, strict=True)):
            return tree
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type) and not is_array(tree):
        changes = {}
        for field in dataclasses.fields(tree):
            old = getattr(tree, field.name)
            new = mapped(old, function)
            if new is not old:
                changes[field.name] = new
        return dataclasses.replace(tree, **changes) if changes else tree
    return function(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves, in the order in which ``mapped`` meets them."""
    found: list[Any] = []

    def keep(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    mapped(tree, keep)
    return iter(found)


def library_of(array: Any) -> str:
    """The library's name, as ``to`` takes it."""
    root = type(array).__module__.partition(".")[0]
    return "jax" if root == "jaxlib" else root


def converted(
    tree: Any,
    target: Any,
    *,
    policy: Policy | str | None = None,
    pairs: list[tuple[Any, Any]] | None = None,
) -> Any:
    """The tree with its arrays in ``target``; every other leaf stays as it is.

    One pass, and one wait for each device whose memory is brought to the host. An array that
    occurs twice crosses once. ``pairs`` is given each array and what became of it.
    """
    staged = _on_the_way_to_the_host(tree, target, policy)
    done: dict[int, Any] = {}

    def convert(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        if id(leaf) not in done:
            source = staged.get(id(leaf), leaf)
            done[id(leaf)] = to(source, target, policy=policy)
            if pairs is not None:
                pairs.append((leaf, done[id(leaf)]))
        return done[id(leaf)]

    return mapped(tree, convert)


def _on_the_way_to_the_host(tree: Any, target: Any, policy: Any) -> dict[int, Any]:
    """Copies in pinned memory of the tree's CUDA tensors, made together and waited for once."""
    torch = sys.modules.get("torch")
    if torch is None or target not in ("numpy", np) or not torch.cuda.is_initialized():
        return {}
    wanted = {
        id(leaf): leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.is_cuda
    }
    if len(wanted) < 2:
        return {}
    staged: dict[int, Any] = {}
    for key, tensor in wanted.items():
        plan = _core.explain_plan(tensor, "numpy", policy, None, None, None)
        if plan.refused or plan.steps != ("copy to host",):
            continue  # to() refuses it, or has more to do than to copy
        room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        staged[key] = room.copy_(tensor, non_blocking=True)
    for device in {wanted[key].device for key in staged}:
        torch.cuda.current_stream(device).synchronize()
    return staged
