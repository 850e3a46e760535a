"""to_numpy, to_torch and to take trees: one call, one result of the same structure."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import mmap
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
import torch
import torch.utils._pytree as pytree
from dlb_support import settle
from hypothesis import given, settings
from hypothesis import strategies as st

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


class InNamespace(InOptree):
    pass


optree.register_pytree_node(
    InNamespace,
    lambda x: ((x.values,), None),
    lambda _, parts: InNamespace(parts[0]),
    namespace="trees of these tests",
)


class Text(str):
    pass


class Length(bytes):
    def __new__(cls, text: str) -> Length:
        return super().__new__(cls, text.encode())


class Colour(str, enum.Enum):
    RED = "red"


class Constant(tuple, enum.Enum):  # type: ignore[type-arg]
    ONE = (1,)


class Boxes(list):  # type: ignore[type-arg]
    """Has a class attribute's worth more than its items, and a constructor of its own."""

    def __init__(self, n: int = 0, items: Any = ()) -> None:
        super().__init__(items)
        self.n = n


class Ordered(collections.OrderedDict):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label


class Defaults(collections.defaultdict):  # type: ignore[type-arg]
    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        super().__init__(list)
        self.label = label


class Counts(collections.Counter):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label


class Ring(collections.deque):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__(maxlen=3)
        self.label = label


class Batch(collections.UserDict):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label


class Rows(collections.UserList):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label


class Chain(collections.ChainMap):  # type: ignore[type-arg]
    def __init__(self, label: str) -> None:
        super().__init__({}, {"below": 1})
        self.label = label


class Space(types.SimpleNamespace):
    def __init__(self, label: str) -> None:
        super().__init__(label=label)


class Items(dict):  # type: ignore[type-arg]
    """The dict whose items are its attributes."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.__dict__ = self
        self.label = label


class Triple(tuple):  # type: ignore[type-arg]
    label: str

    def __new__(cls, *parts: Any) -> Triple:
        return super().__new__(cls, parts)


class Labelled(Pair):
    label: str


@dataclasses.dataclass
class Output(collections.OrderedDict):  # type: ignore[type-arg]
    """As transformers' outputs: every field that is set is an item as well."""

    values: Any = None
    other: Any = None

    def __post_init__(self) -> None:
        for name in ("values", "other"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


@dataclasses.dataclass
class Prepared:
    scale: dataclasses.InitVar[float]
    values: Any
    double: Any = dataclasses.field(init=False)

    def __post_init__(self, scale: float) -> None:
        self.double = self.values * scale


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    values: Any
    name: str = "x"


@dataclasses.dataclass(frozen=True)
class OldSlots:
    __slots__ = ("name", "values")
    values: Any
    name: str


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
    "Counter": (lambda x: collections.Counter(a=x), lambda t: t["a"]),
    "UserDict": (lambda x: collections.UserDict(a=x), lambda t: t["a"]),
    "UserList": (lambda x: collections.UserList([1, x]), lambda t: t[1]),
    "ChainMap": (lambda x: collections.ChainMap({"b": 1}, {"a": x}), lambda t: t["a"]),
    "MappingProxyType": (lambda x: types.MappingProxyType({"a": x}), lambda t: t["a"]),
    "SimpleNamespace": (lambda x: types.SimpleNamespace(a=x), lambda t: t.a),
    "deque": (lambda x: collections.deque([x, 1]), lambda t: t[0]),
    "dict subclass": (lambda x: Attributes({"a": x}, label="mine"), lambda t: t["a"]),
    "torch's pytree": (InTorch, lambda t: t.values),
    "optree": (InOptree, lambda t: t.values),
    "optree's, in a namespace": (InNamespace, lambda t: t.values),
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
@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_other_leaves_are_the_same_objects(road: str, target: str) -> None:
    pytest.importorskip(target)
    others: list[Any] = ["text", b"bytes", 3, 2.5, None, True, object(), {1, 2}, torch.float32]
    others += [
        np.str_("text"),
        np.bytes_(b"x"),
        np.datetime64("2024-01-01"),
        np.timedelta64(1, "s"),
    ]
    others += [np.void(b"raw"), Text("b"), Colour.RED, Length("long"), Constant.ONE]
    others += [range(3), int, torch.Tensor, lambda: None]
    tree = {"tensor": tensor(), "others": others}
    result = dlbridge.to(tree, target)
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
        return np.arange(3.0).__dlpack__()


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


def labelled(
    make: Callable[[str], Any], fill: Callable[[Any, Any], object]
) -> Callable[[Any], Any]:
    def wrap(x: Any) -> Any:
        made = make("mine")
        fill(made, x)
        return made

    return wrap


def set_item(made: Any, x: Any) -> None:
    made["z"] = 1
    made["a"] = x


def triple(x: Any) -> Triple:
    made = Triple(1, x, 2)
    made.label = "mine"
    return made


def labelled_pair(x: Any) -> Labelled:
    made = Labelled(x, 1)
    made.label = "mine"
    return made


#: classes of people's own, with the member that `wrap` put in
CLASSES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "OrderedDict": (labelled(Ordered, set_item), lambda t: t["a"]),
    "defaultdict with slots": (labelled(Defaults, set_item), lambda t: t["a"]),
    "Counter": (labelled(Counts, set_item), lambda t: t["a"]),
    "UserDict": (labelled(Batch, set_item), lambda t: t["a"]),
    "ChainMap": (labelled(Chain, set_item), lambda t: t["a"]),
    "attributes that are items": (labelled(Items, set_item), lambda t: t.a),
    "SimpleNamespace": (labelled(Space, lambda made, x: setattr(made, "a", x)), lambda t: t.a),
    "deque": (labelled(Ring, lambda made, x: made.extend([1, x])), lambda t: t[1]),
    "UserList": (labelled(Rows, lambda made, x: made.extend([1, x])), lambda t: t[1]),
    "tuple": (triple, lambda t: t[1]),
    "namedtuple": (labelled_pair, lambda t: t.left),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_ones_own_keeps_what_it_has(name: str) -> None:
    wrap, unwrap = CLASSES[name]
    source = tensor()
    tree = wrap(source)
    for result in (dlbridge.to_numpy(tree), dlbridge.accepts("numpy")(Kept)(tree).tree):
        assert type(result) is type(tree) and result is not tree
        assert unwrap(tree) is source
        assert type(unwrap(result)) is np.ndarray
        assert result.label == "mine"
        if isinstance(tree, collections.UserDict | dict):
            assert list(result) == list(tree)
    assert getattr(tree, "maxlen", 3) == getattr(dlbridge.to_numpy(tree), "maxlen", 3)
    if isinstance(tree, Defaults):
        assert dlbridge.to_numpy(tree).default_factory is list


class Kept:
    """No container, so that what it holds comes back as it arrived."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree


def test_a_constructor_of_ones_own_is_not_called() -> None:
    given = Boxes(1, [np.ones(2)])
    kind, parts, n = dlbridge.accepts("torch")(lambda c: (type(c), Kept(list(c)), c.n))(given)
    assert kind is Boxes and n == 1
    assert len(parts.tree) == 1 and isinstance(parts.tree[0], torch.Tensor)
    made = dlbridge.to_torch(given)
    assert type(made) is Boxes and made.n == 1 and isinstance(made[0], torch.Tensor)


def test_dataclasses_of_every_form() -> None:
    prepared = dlbridge.to_numpy(Prepared(2.0, tensor()))
    assert type(prepared.values) is type(prepared.double) is np.ndarray
    for kind in (FrozenSlots, OldSlots):
        made = dlbridge.to_numpy(kind(tensor(), "kept"))
        assert type(made) is kind and type(made.values) is np.ndarray and made.name == "kept"


def test_a_member_that_is_an_attribute_too_stays_both() -> None:
    output = Output(values=tensor())
    made = dlbridge.to_numpy(output)
    assert type(made) is Output and list(made) == ["values"]
    assert type(made["values"]) is np.ndarray and made.values is made["values"]
    assert made.other is None
    items = dlbridge.to_numpy(labelled(Items, set_item)(tensor()))
    items.b = 3
    assert items["b"] == 3


class NoCopy(dict):  # type: ignore[type-arg]
    def __copy__(self) -> Any:
        raise RuntimeError("not this one")


class CopiedAsItself(dict):  # type: ignore[type-arg]
    def __copy__(self) -> CopiedAsItself:
        return self


class SharesItsData(collections.UserDict):  # type: ignore[type-arg]
    def __copy__(self) -> SharesItsData:
        made = SharesItsData()
        made.data = self.data
        return made


def test_the_tree_that_was_given_stays_as_it_was() -> None:
    source = tensor()
    given = SharesItsData(a=source)
    assert type(dlbridge.to_numpy(given)["a"]) is np.ndarray
    assert given["a"] is source


class CopiedAsDict(dict):  # type: ignore[type-arg]
    def __copy__(self) -> dict[Any, Any]:
        return dict(self)


@pytest.mark.parametrize("kind", [NoCopy, CopiedAsItself, CopiedAsDict])
def test_what_cannot_be_copied_is_refused_by_name(kind: Any) -> None:
    tree = kind(a=tensor())
    for convert in (dlbridge.to_numpy, dlbridge.accepts("numpy")(lambda x: x)):
        with pytest.raises(TypeError, match=kind.__qualname__):
            convert(tree)
    assert isinstance(tree["a"], torch.Tensor)
    # Where there is nothing to change, nothing is copied.
    kept = kind(a=1)
    assert dlbridge.to_numpy([tensor(), kept])[1] is kept


def test_containers_that_nobody_may_write_to_are_rebuilt_as_well() -> None:
    import torch.fx.immutable_collections as immutable

    proxy = types.MappingProxyType(collections.OrderedDict(b=tensor(), a=tensor()))
    assert list(dlbridge.to_numpy(proxy) | {}) == ["b", "a"]
    made = dlbridge.to_numpy({"a": immutable.immutable_list([tensor(), 1])})
    assert type(made["a"]) is immutable.immutable_list and type(made["a"][0]) is np.ndarray


@pytest.mark.parametrize("name", WRAPPERS)
def test_explain_gives_a_tree_of_plans(name: str) -> None:
    wrap, unwrap = WRAPPERS[name]
    tree: Any = dlbridge.explain(wrap(tensor()), "numpy")
    assert type(tree) is type(wrap(1))
    assert unwrap(tree) == dlbridge.explain(tensor(), "numpy")
    assert unwrap(dlbridge.explain(wrap(torch.ones(2).to_sparse()), "numpy")).refused


def test_explain_of_a_tree_without_a_tensor_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="tree"):
        dlbridge.explain([1, "x"], "numpy")


@pytest.mark.parametrize("name", WRAPPERS)
def test_functions_of_trees_take_every_container(name: str) -> None:
    wrap, unwrap = WRAPPERS[name]
    source = tensor()
    tree = wrap(source)
    seen: list[Any] = []

    @dlbridge.accepts("numpy")
    def function(x: Any) -> Any:
        seen.append(unwrap(x))
        return wrap(unwrap(x) * 2), x

    doubled, same = function(tree)
    assert type(seen[0]) is np.ndarray
    assert type(doubled) is type(tree) and torch.equal(unwrap(doubled), source * 2)
    assert unwrap(same) is source
    home = dlbridge.returns_like(tree)(wrap(np.ones(2)))
    assert type(home) is type(tree) and isinstance(unwrap(home), torch.Tensor)
    assert type(unwrap(dlbridge.as_namespace("numpy", tree)[1][0])) is np.ndarray
    # A part in which nothing changes is the very same object.
    for unchanged in (wrap("text"), wrap(np.ones(1))):
        assert dlbridge.as_namespace("numpy", [unchanged, source])[1][0][0] is unchanged


def test_a_tensor_that_occurs_twice_crosses_once() -> None:
    shared, tree = tensor(), [tensor()]
    for policy in ("host", "snapshot"):
        with dlbridge.trace() as log:
            result = dlbridge.to_numpy({"a": shared, "b": [shared, *tree]}, policy=policy)
        assert result["a"] is result["b"][0] and len(log) == 2
    many = dlbridge.to_numpy([*(tensor() for _ in range(200)), shared, shared])
    assert many[-1] is many[-2] and len({id(each) for each in many}) == 201
    made: Any = dlbridge.to({"a": shared, "b": shared}, "dlbridge")
    assert made["a"] is made["b"]


def test_what_a_door_takes_is_a_tensor_in_a_tree() -> None:
    with mmap.mmap(-1, 16) as mapped:
        tree = {
            "scalar": np.float32(1.5),
            "flag": np.bool_(True),
            "count": np.int64(7),
            "bytearray": bytearray(b"ab"),
            "memoryview": memoryview(b"abc"),
            "array": array.array("d", [1.0, 2.0]),
            "mmap": mapped,
            "capsule": dlbridge.capsule(np.ones(2)),
        }
        result = dlbridge.to_torch(tree)
        assert all(isinstance(each, torch.Tensor) for each in result.values())
        assert [tuple(each.shape) for each in result.values()] == [
            (), (), (), (2,), (3,), (2,), (16,), (2,)
        ]  # fmt: skip
        assert (result["scalar"], result["count"], result["flag"]) == (1.5, 7, True)
        del result
        settle()  # torch ends its tensors without the GIL: the map is let go a step later
    assert dlbridge.to_numpy([np.float32(3)])[0].shape == ()


class Image(torch.Tensor):
    pass


class Matrix(np.ndarray):  # type: ignore[type-arg]
    pass


def test_a_subclass_is_of_its_bases_library() -> None:
    image = torch.ones(2).as_subclass(Image)
    doubled = dlbridge.accepts("numpy")(lambda x: x * 2)(image)
    assert isinstance(doubled, torch.Tensor) and doubled.tolist() == [2.0, 2.0]
    assert isinstance(dlbridge.returns_like([image])(np.ones(1)), torch.Tensor)
    matrix = np.ones(2).view(Matrix)
    assert isinstance(dlbridge.accepts("torch")(lambda x: x * 2)(matrix), np.ndarray)
    assert dlbridge._core.library_of(matrix) == dlbridge._core.library_of(np.float32(1)) == "numpy"
    assert dlbridge._core.library_of(image) == "torch"
    assert dlbridge._core.library_of(dlbridge.from_dlpack(image)) == "dlbridge"


class Mixed(np.lib.mixins.NDArrayOperatorsMixin):
    def __dlpack__(self, **keywords: Any) -> Any:
        return np.ones(2).__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_a_mixin_of_a_library_makes_nothing_its_array() -> None:
    assert dlbridge._core.library_of(Mixed()) is None
    assert dlbridge._core.library_of(3) is None


@pytest.mark.parametrize("make", [lambda c: c.append(c), lambda c: c.append({"a": [c]})])
@pytest.mark.parametrize("kind", [list, Boxes, collections.deque, collections.UserList])
def test_cycles_end_in_a_recursion_error(kind: Any, make: Any) -> None:
    tree = kind()
    tree.append(tensor())
    make(tree)
    for walk in (
        dlbridge.to_numpy,
        lambda x: dlbridge.to(x, "torch"),
        lambda x: dlbridge.explain(x, "numpy"),
        dlbridge.accepts("numpy")(lambda x: x),
        dlbridge.returns_like(tensor()),
    ):
        with pytest.raises(RecursionError):
            walk(tree)


@pytest.mark.parametrize("arguments", [(), ([],), ([], len, 1)])
def test_leaves_are_mapped_by_one_function(arguments: Any) -> None:
    with pytest.raises(TypeError, match="takes a tree and a function"):
        dlbridge._core.map_leaves(*arguments)


def test_an_error_in_accepts_says_where() -> None:
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.accepts("numpy")(lambda x, y: x)(1, y=UserPair(torch.ones(2).to_sparse()))
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["at x['**named']['y']['of']['mine']"]


class UserPair(collections.UserDict):  # type: ignore[type-arg]
    def __init__(self, x: Any) -> None:
        super().__init__(of={"mine": x})


leaf = st.one_of(
    st.integers(),
    st.text(max_size=3),
    st.none(),
    st.binary(max_size=3),
    st.lists(st.floats(allow_nan=False), max_size=3).map(np.array),
)
trees = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=4),
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return isinstance(a, torch.Tensor) and a.tolist() == b.tolist()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b


@settings(max_examples=200, deadline=None)
@given(trees)
def test_any_tree_keeps_its_structure_and_its_leaves(tree: Any) -> None:
    whole = {"anchor": np.ones(1), "tree": tree}  # there is always an array in it
    made = dlbridge.to_torch(whole)
    assert same(made, whole)
    seen: list[Any] = []
    assert dlbridge._core.map_leaves(whole, lambda leaf: (seen.append(leaf), leaf)[1]) is whole
    back = dlbridge._core.map_leaves(made, lambda leaf: leaf)
    assert back is made
