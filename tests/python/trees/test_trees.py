"""to_numpy, to_torch and to take trees: one call, one result of the same structure."""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
import torch
import torch.utils._pytree as pytree
from dlb_support import settle

import dlbridge


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    values: Any
    name: str = "x"
    derived: Any = dataclasses.field(init=False, default=None)


@dataclasses.dataclass(slots=True)
class Slots:
    values: Any


class Attributes(dict):  # type: ignore[type-arg]
    """A dict of somebody's own, with something beside its items."""

    def __init__(self, *args: Any, label: str = "") -> None:
        super().__init__(*args)
        self.label = label


class InTorch:
    def __init__(self, values: Any) -> None:
        self.values = values


class InOptree:
    def __init__(self, values: Any) -> None:
        self.values = values


pytree.register_pytree_node(
    InTorch, lambda x: ([x.values], None), lambda parts, _: InTorch(parts[0])
)
optree.register_pytree_node(
    InOptree,
    lambda x: ((x.values,), None),
    lambda _, parts: InOptree(parts[0]),
    namespace=optree.registry.__GLOBAL_NAMESPACE,
)


def tensor() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3)


WRAPPERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "dict": (lambda x: {"a": x, 1: "text"}, lambda t: t["a"]),
    "list": (lambda x: [x, None], lambda t: t[0]),
    "tuple": (lambda x: (3, x), lambda t: t[1]),
    "namedtuple": (lambda x: Pair(x, b"bytes"), lambda t: t.left),
    "struct sequence": (
        lambda x: torch.return_types.max((x, 1)),
        lambda t: t.values,
    ),
    "frozen dataclass": (Frozen, lambda t: t.values),
    "dataclass with slots": (Slots, lambda t: t.values),
    "OrderedDict": (lambda x: collections.OrderedDict(a=x, b=2), lambda t: t["a"]),
    "defaultdict": (lambda x: collections.defaultdict(list, a=x), lambda t: t["a"]),
    "deque": (lambda x: collections.deque([x, 1]), lambda t: t[0]),
    "dict subclass": (lambda x: Attributes({"a": x}, label="mine"), lambda t: t["a"]),
    "torch's pytree": (InTorch, lambda t: t.values),
    "optree": (InOptree, lambda t: t.values),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_container_comes_back_as_its_own_kind(road: str, name: str) -> None:
    wrap, unwrap = WRAPPERS[name]
    source = tensor()
    tree = wrap(source)
    result = dlbridge.to_numpy(tree)
    assert type(result) is type(tree)
    assert result is not tree
    assert unwrap(tree) is source  # the tree that was given stays as it was
    array = unwrap(result)
    assert type(array) is np.ndarray
    assert array.ctypes.data == source.data_ptr()


@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("inner", WRAPPERS)
def test_containers_nest(outer: str, inner: str) -> None:
    wrap, unwrap = WRAPPERS[outer]
    wrap_inner, unwrap_inner = WRAPPERS[inner]
    array = np.arange(6.0)
    result = unwrap_inner(unwrap(dlbridge.to_torch(wrap(wrap_inner(array)))))
    assert type(result) is torch.Tensor
    assert result.data_ptr() == array.ctypes.data


@pytest.mark.keeps_sources  # JAX, imported here, keeps constants
def test_other_leaves_are_the_same_objects(road: str) -> None:
    others: list[Any] = ["text", b"bytes", 3, 2.5, None, True, object(), {1, 2}, torch.float32]
    others += [np.float32(1), bytearray(2), range(3), int, torch.Tensor, lambda: None]
    tree = {"tensor": tensor(), "others": others}
    for result in (dlbridge.to_numpy(tree), dlbridge.to(tree, "numpy"), dlbridge.to(tree, "jax")):
        assert all(a is b for a, b in zip(result["others"], others, strict=True))


def test_a_size_stays_a_size(road: str) -> None:
    assert type(dlbridge.to_numpy([tensor(), torch.Size([2, 3])])[1]) is torch.Size


def test_what_a_container_has_beside_its_parts_stays(road: str) -> None:
    mine = dlbridge.to_numpy(Attributes({"a": tensor()}, label="mine"))
    assert mine.label == "mine"
    assert dlbridge.to_numpy(collections.defaultdict(list, a=tensor())).default_factory is list
    ordered = collections.OrderedDict(b=tensor(), a=tensor())
    assert list(dlbridge.to_numpy(ordered)) == ["b", "a"]
    assert list(dlbridge.to_numpy({"z": tensor(), "a": 1, "m": tensor()})) == ["z", "a", "m"]
    frozen = Frozen(tensor(), "kept")
    object.__setattr__(frozen, "derived", tensor())
    result = dlbridge.to_numpy(frozen)
    assert result.name == "kept" and type(result.derived) is np.ndarray


def test_arguments_hold_for_every_leaf(road: str) -> None:
    tree = {"a": tensor(), "b": [tensor().requires_grad_()]}
    copied = dlbridge.to_numpy(tree, copy=True)
    assert copied["a"].ctypes.data != tree["a"].data_ptr()
    assert copied["b"][0].flags.writeable
    assert dlbridge.to_numpy(tree, dtype="float64")["b"][0].dtype == np.float64
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(tree, policy="strict")
    doubled = dlbridge.to_torch({"a": np.ones(3)}, dtype="float32")
    assert doubled["a"].dtype == torch.float32


@pytest.mark.keeps_sources  # JAX, imported here, keeps constants
def test_trees_go_to_any_library() -> None:
    jax = pytest.importorskip("jax")
    result = dlbridge.to({"a": np.ones(3, "f4"), "b": (np.zeros(2, "f4"), "x")}, jax)
    assert isinstance(result["a"], jax.Array) and isinstance(result["b"][0], jax.Array)
    assert result["b"][1] == "x"
    managed = dlbridge.to([tensor(), 1], "dlbridge")
    assert type(managed[0]) is dlbridge.ManagedTensor and managed[1] == 1


def test_a_refusal_says_where(road: str) -> None:
    tree = {"encoder": [Pair(tensor(), Frozen(torch.ones(2).to_sparse()))]}
    for convert in (dlbridge.to_numpy, lambda x: dlbridge.to(x, "numpy")):
        with pytest.raises(dlbridge.ConversionRefused, match="sparse") as caught:
            convert(tree)
        if sys.version_info >= (3, 11):
            assert caught.value.__notes__ == ["at x['encoder'][0].right.values"]


@pytest.mark.parametrize("tree", [[1, 2], ("a",), {"a": 1}, [[], 3], Frozen(1)], ids=repr)
def test_a_tree_without_a_tensor_is_a_type_error(tree: Any) -> None:
    for convert in (dlbridge.to_numpy, dlbridge.to_torch, lambda x: dlbridge.to(x, "numpy")):
        with pytest.raises(TypeError, match="tree"):
            convert(tree)


@pytest.mark.parametrize("tree", [[], (), {}, {"a": []}], ids=repr)
def test_an_empty_tree_stays_one(tree: Any) -> None:
    for convert in (dlbridge.to_numpy, dlbridge.to_torch):
        assert convert(tree) == tree
        assert type(convert(tree)) is type(tree)


@pytest.mark.parametrize("arguments", [(), ([],), ([], len, 1)])
def test_a_tree_is_mapped_by_one_function(arguments: Any) -> None:
    with pytest.raises(TypeError, match="takes a tree and a function"):
        dlbridge._core.map_tree(*arguments)


def test_a_tree_that_contains_itself_ends() -> None:
    tree: list[Any] = [tensor()]
    tree.append(tree)
    with pytest.raises(RecursionError) as caught:
        dlbridge.to_numpy(tree)
    assert not getattr(caught.value, "__notes__", [])  # which would name a place a thousand deep


def test_the_other_doors_take_no_trees() -> None:
    for door in (dlbridge.from_dlpack, dlbridge.capsule):
        with pytest.raises(TypeError):
            door([tensor()])


class Shrinking:
    """Empties the list that it is in while it is asked for its tensor."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **keywords: object) -> object:
        self.container.clear()
        return np.arange(3.0).__dlpack__(max_version=(1, 0))


def test_a_container_may_change_meanwhile() -> None:
    array = np.arange(2.0)
    numbers: list[Any] = []
    numbers += [Shrinking(numbers), array, array]
    result = dlbridge.to_numpy(numbers)
    assert [each.tolist() for each in result] == [[0, 1, 2], [0, 1], [0, 1]]
    names: dict[str, Any] = {}
    names |= {"a": Shrinking(names), "b": array}
    assert [each.tolist() for each in dlbridge.to_numpy(names).values()] == [[0, 1, 2], [0, 1]]


def test_nothing_is_left_behind_by_trees(road: str) -> None:
    source = tensor()
    bad = torch.ones(2).to_sparse()
    settle()
    before = dlbridge._core.live_managed_tensors(), sys.getrefcount(source), sys.getrefcount(bad)
    for _ in range(20):
        dlbridge.to_numpy({"a": [source, Pair(source, 1)]})
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy({"a": [source, Frozen(source), (source, bad)]})
    settle()
    after = dlbridge._core.live_managed_tensors(), sys.getrefcount(source), sys.getrefcount(bad)
    assert after == before
