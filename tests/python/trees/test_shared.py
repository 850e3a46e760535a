"""What occurs more than once in a tree is made once: sharing stays, and the work is done once."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest
import torch

import dlbridge


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Attribute:
    """One of attrs': what it has is in a tuple of its class."""

    def __init__(self, name: str) -> None:
        self.name = name


class OfAttrs:
    __attrs_attrs__ = (Attribute("values"), Attribute("name"), Attribute("later"))
    __slots__ = ("later", "name", "values")

    def __init__(self, values: Any) -> None:
        self.values = values
        self.name = "kept"


CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda x: {"a": x},
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "deque": lambda x: collections.deque([x]),
    "UserDict": lambda x: collections.UserDict(a=x),
    "OrderedDict": lambda x: collections.OrderedDict(a=x),
    "dataclass": lambda x: Pair(x, 1),
    "attrs": OfAttrs,
    "namespace": lambda x: types.SimpleNamespace(a=x),
    "proxy": lambda x: types.MappingProxyType({"a": x}),
}


def walks() -> dict[str, Callable[[Any], Any]]:
    def accepted(tree: Any) -> Any:
        seen: list[Any] = []
        dlbridge.accepts("numpy")(seen.append)(tree)
        return seen[0]

    return {
        "to_numpy": dlbridge.to_numpy,
        "to": lambda tree: dlbridge.to(tree, "dlbridge"),
        "copies": lambda tree: dlbridge.to_torch(tree, copy=True),
        "explain": lambda tree: dlbridge.explain(tree, "numpy"),
        "accepts": accepted,
        "as_namespace": lambda tree: dlbridge.as_namespace("numpy", tree)[1][0],
        "returns_like": dlbridge.returns_like(np.ones(1)),
    }


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("walk", walks())
def test_a_container_that_occurs_twice_stays_one(name: str, walk: str) -> None:
    shared = CONTAINERS[name](torch.ones(2))
    made = walks()[walk](
        {"first": shared, "more": [shared, (shared,)], "other": CONTAINERS[name](1)}
    )
    assert made["first"] is made["more"][0] is made["more"][1][0]
    assert made["first"] is not shared and type(made["first"]) is type(shared)


@pytest.mark.parametrize("walk", walks())
def test_a_tensor_that_occurs_twice_stays_one(walk: str) -> None:
    shared = torch.ones(2)
    made = walks()[walk]({"first": shared, "more": [shared, Pair(shared, 1)]})
    assert made["first"] is made["more"][0] is made["more"][1].left
    assert made["first"] is not shared


@pytest.mark.parametrize("walk", walks())
def test_a_tree_of_shared_parts_takes_as_long_as_its_parts(walk: str) -> None:
    source = torch.ones(1)
    tree: Any = [source]
    for _ in range(60):  # 2**60 leaves, if each were met where it occurs
        tree = [tree, (tree,)]
    made = walks()[walk](tree)
    for _ in range(60):
        assert made[0] is made[1][0]
        made = made[0]
    assert made[0] is not source


def test_a_shared_part_without_a_tensor_is_still_no_tree_of_tensors() -> None:
    shared = [1, "text"]
    with pytest.raises(TypeError, match="there is none"):
        dlbridge.to_numpy([shared, shared])
    made = dlbridge.to_numpy([shared, shared, torch.ones(1)])
    assert made[0] is made[1] and made[0] == shared and made[0] is not shared


def test_a_container_around_a_shared_part_is_rebuilt() -> None:
    shared = (np.ones(1),)  # which stays what it is: nothing in it changes
    tree = [shared, Pair(shared, 1)]
    made = dlbridge.to_numpy(tree)
    assert made[0] is shared and made[1].left is shared
    assert made[1] is not tree[1]


def test_inputs_that_are_the_same_are_checked_one_by_one() -> None:
    x = np.array([1.0, 2.0])
    assert dlbridge.gradcheck(lambda a, b: a * b * 3, x, x)


def test_a_class_of_attrs_is_a_container() -> None:
    source = torch.ones(2)
    given = OfAttrs(source)
    made = dlbridge.to_numpy(given)
    assert type(made) is OfAttrs and type(made.values) is np.ndarray and made.name == "kept"
    assert given.values is source and not hasattr(made, "later")


@pytest.mark.parametrize("kind", [set, frozenset])
def test_sets_are_leaves_since_arrays_have_no_hash(kind: Any) -> None:
    tree = [torch.ones(1), kind([torch.ones(1)])]
    assert dlbridge.to_numpy(tree)[1] is tree[1]
    with pytest.raises(TypeError, match=f"not {kind.__name__}"):
        dlbridge.to_numpy(tree[1])


def test_packed_sequences_and_what_others_registered_keep_their_kind() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.arange(3.0), torch.arange(2.0)])
    made: Any = dlbridge.to_numpy(packed)
    assert type(made) is type(packed) and type(made.data) is np.ndarray
    assert type(made.batch_sizes) is np.ndarray and made.sorted_indices is None
    part = optree.functools.partial(max, torch.ones(1))
    assert type(dlbridge.to_numpy([part])[0].args[0]) is np.ndarray
