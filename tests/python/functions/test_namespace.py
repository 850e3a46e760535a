"""Array-agnostic code: as_namespace, returns_like, accepts, and the trees under them."""

from __future__ import annotations

import asyncio
import collections
import copy
import dataclasses
import inspect
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dlb_support import shares
from scipy import ndimage

import dlbridge
from dlbridge.trees import leaves, mapped

jax = pytest.importorskip("jax")
KMeans = pytest.importorskip("sklearn.cluster").KMeans
pytestmark = pytest.mark.keeps_sources  # JAX keeps constants


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Record:
    values: Any
    name: str


@dlbridge.accepts("numpy")
def blur(image: Any, sigma: float = 1.0) -> Any:
    assert type(image) is np.ndarray
    return ndimage.gaussian_filter(image, sigma)


def test_as_namespace_gives_the_functions_and_the_arrays() -> None:
    tensor = torch.ones(3)
    xp, (x, y, n) = dlbridge.as_namespace("numpy", tensor, jax.numpy.ones(3), 5)
    assert xp is np and type(x) is type(y) is np.ndarray and n == 5
    assert shares(x, tensor.numpy())
    xp, (x,) = dlbridge.as_namespace("torch", np.ones(3))
    assert xp is torch and isinstance(x, torch.Tensor)
    xp, (x,) = dlbridge.as_namespace("jax", np.ones(3, dtype="f4"))
    assert xp is jax.numpy and isinstance(x, jax.Array)
    assert dlbridge.as_namespace(jax.numpy, np.ones(3, dtype="f4"))[0] is jax.numpy


def test_what_is_no_library_is_no_namespace() -> None:
    for function in (dlbridge.as_namespace, dlbridge.accepts):
        for target in (3, None, torch.Tensor):
            with pytest.raises(TypeError, match="a library's name or its module, not"):
                function(target)
    with pytest.raises(ValueError, match="target 'nope' is unknown"):
        dlbridge.as_namespace("nope", np.ones(3))


@pytest.mark.parametrize("holder", ["memoryview", "process", "dlbridge", dlbridge, "pyarrow.Array"])
def test_what_holds_memory_alone_is_no_namespace(holder: Any) -> None:
    with pytest.raises(
        ValueError, match=r"has none of arrays; use one of 'numpy', 'torch', "
    ) as no:
        dlbridge.as_namespace(holder, np.ones(3))
    assert not {"'array'", "'ctypes'", "'PIL'"} & set(str(no.value).split(", "))


def test_as_namespace_follows_a_policy() -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.as_namespace("numpy", torch.ones(1, requires_grad=True), policy="strict")


@pytest.mark.parametrize(
    ("like", "kind"),
    [(np.ones(1), np.ndarray), (torch.ones(1), torch.Tensor), (jax.numpy.ones(1), jax.Array)],
)
def test_returns_like_brings_an_answer_home(like: Any, kind: type) -> None:
    answer = {"labels": [np.arange(3), np.float32(2)], "text": "x", "count": 4}
    home = dlbridge.returns_like([0, like])(answer)
    assert isinstance(home["labels"][0], kind)
    assert np.asarray(home["labels"][0]).tolist() == [0, 1, 2]
    assert home["text"] == "x" and home["count"] == 4


def test_returns_like_needs_something_to_be_like() -> None:
    with pytest.raises(TypeError, match="array to be like"):
        dlbridge.returns_like([1, "x"])


@pytest.mark.parametrize("make", [np.eye, torch.eye, jax.numpy.eye])
def test_a_scipy_function_answers_in_the_callers_library(make: Any) -> None:
    image = make(4)
    answer = blur(image, sigma=0.5)
    assert isinstance(answer, jax.Array if isinstance(image, jax.Array) else type(image))
    expected = ndimage.gaussian_filter(np.asarray(image), 0.5)
    assert np.allclose(np.asarray(answer), expected)


def test_scikit_learn_with_tensors() -> None:
    @dlbridge.accepts("numpy")
    def clusters(points: Any, count: int) -> Any:
        return KMeans(count, n_init=1, random_state=0).fit(points).labels_

    points = torch.cat([torch.zeros(5, 2), torch.full((5, 2), 9.0)])
    labels = clusters(points, 2)
    assert isinstance(labels, torch.Tensor)
    assert len(set(labels[:5].tolist())) == len(set(labels[5:].tolist())) == 1


def test_trees_of_arguments() -> None:
    @dlbridge.accepts("numpy")
    def work(pair: Pair, record: Record, *rest: Any, **named: Any) -> Any:
        arrays = [pair.first, record.values, rest[0][0], named["options"]["weights"]]
        assert all(type(each) is np.ndarray for each in arrays)
        assert pair.second == 4 and record.name == "mine"
        return Pair(pair.first * 2, [record.values.sum()]), Record(rest[0][0] + 1, "yours")

    pair, record = work(
        Pair(torch.ones(2), 4),
        Record(torch.ones(3), "mine"),
        (torch.zeros(1),),
        options={"weights": torch.ones(1)},
    )
    assert type(pair) is Pair and pair.first.tolist() == [2.0, 2.0]
    assert isinstance(pair.second[0], torch.Tensor) and pair.second[0].item() == 3
    assert type(record) is Record and record.values.tolist() == [1.0] and record.name == "yours"


def test_the_first_foreign_array_decides() -> None:
    @dlbridge.accepts("numpy")
    def add(a: Any, b: Any) -> Any:
        return a + b

    ones = np.ones(2, dtype="f4")
    assert isinstance(add(ones, torch.ones(2)), torch.Tensor)
    assert isinstance(add(jax.numpy.ones(2), torch.ones(2)), jax.Array)
    assert type(add(ones, ones)) is np.ndarray
    assert add(1, 2) == 3


def test_an_argument_that_is_given_back_is_itself() -> None:
    tensor = torch.ones(2, requires_grad=True)
    same = dlbridge.accepts("numpy")(lambda x: x)(tensor)
    assert same is tensor


@pytest.mark.parametrize("name", ["reversed", "read-only", "conj", "tree"])
def test_a_copy_that_was_written_to_comes_back_as_written(name: str) -> None:
    given: Any = {
        "reversed": np.arange(3.0)[::-1],
        "read-only": np.broadcast_to(np.arange(3.0), (2, 3)),
        "conj": torch.tensor([1 + 2j]).conj(),
        "tree": {"a": np.arange(3.0)[::-1], "b": np.arange(3.0)},
    }[name]

    def more(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: more(value) for key, value in x.items()}
        x += 1
        return x

    before = copy.deepcopy(given)
    made = dlbridge.accepts("numpy" if name == "conj" else "torch")(more)(given)
    if name == "tree":
        assert made["b"] is given["b"] and made["b"].tolist() == [1, 2, 3]
        given, made, before = given["a"], made["a"], before["a"]
    assert type(made) is type(given)
    assert made.tolist() == (before + 1).tolist() and given.tolist() == before.tolist()


def test_a_coroutine_gives_a_copy_back_after_the_block_that_made_it() -> None:
    @dlbridge.accepts("numpy")
    async def more(x: Any) -> Any:
        x += 1
        return x

    x = torch.zeros(2)
    with dlbridge.policy("snapshot"):
        later = more(x)
    assert asyncio.run(later).tolist() == [1, 1] and x.tolist() == [0, 0]


def test_writes_reach_the_caller_where_that_is_safe() -> None:
    @dlbridge.accepts("numpy")
    def clear(x: Any) -> None:
        x[...] = 0

    plain = torch.ones(2)
    clear(plain)
    assert plain.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        clear(torch.ones(2, requires_grad=True))


def test_an_array_that_occurs_twice_crosses_once() -> None:
    @dlbridge.accepts("numpy")
    def same(a: Any, b: Any) -> bool:
        return a is b

    tensor = torch.ones(2)
    with dlbridge.trace() as log:
        assert same(tensor, tensor)
    assert len(log) == 1


@pytest.mark.parametrize("decorate", [dlbridge.accepts("numpy"), dlbridge.numpy_function])
def test_a_static_method_is_one_below_it_too(decorate: Any) -> None:
    class Model:
        @decorate
        @staticmethod
        def double(x: Any) -> Any:
            return x * 2

    for owner in (Model, Model()):
        assert owner.double(torch.ones(2)).tolist() == [2, 2]


@pytest.mark.parametrize(
    "decorate", [dlbridge.accepts("numpy"), dlbridge.numpy_function, dlbridge.torch_function]
)
def test_what_is_no_function_is_told_so_at_once(decorate: Any) -> None:
    for wrong in (3, classmethod(np.sin)):
        with pytest.raises(TypeError, match="a function, not"):
            decorate(wrong)


def test_accepts_without_a_target_says_how_it_goes() -> None:
    with pytest.raises(TypeError, match=r'@dlbridge.accepts\("numpy"\)'):
        dlbridge.accepts(np.sin)  # type: ignore[arg-type]


def test_accepts_keeps_name_and_words() -> None:
    assert blur.__name__ == "blur"
    other = dlbridge.accepts("torch", policy="strict")(lambda x: x + 1)
    assert type(other(np.ones(2))) is np.ndarray
    read_only = np.ones(2)
    read_only.flags.writeable = False
    with pytest.raises(dlbridge.ConversionRefused):
        other(read_only)


TREES: dict[str, Any] = {
    "dict": {"a": 1, "b": [2]},
    "ordered": collections.OrderedDict(a=1, b=2),
    "default": collections.defaultdict(list, a=1),
    "named tuple": Pair(1, (2,)),
    "dataclass": Record([1, 2], "n"),
    "nested": [({"x": (1, [2])},)],
    "leaf": 3,
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_keeps_its_form(name: str) -> None:
    tree = TREES[name]
    assert mapped(tree, lambda leaf: leaf) is tree

    def raised(leaf: Any) -> Any:
        return leaf + 10 if isinstance(leaf, int) else leaf

    new = mapped(tree, raised)
    assert type(new) is type(tree) and new != tree
    assert list(leaves(new)) == [raised(leaf) for leaf in leaves(tree)]
    assert mapped(new, lambda leaf: leaf - 10 if isinstance(leaf, int) else leaf) == tree


def test_the_fix_of_a_refused_argument_is_of_the_argument() -> None:
    masked = np.ma.array([1.0, 2], mask=[False, True])

    def first(a: Any, k: Any = None) -> Any:
        return a

    for call in (dlbridge.accepts("torch")(first), dlbridge.torch_function(first)):
        for arguments, named, fix in (
            ((masked,), {}, "x.filled()"),
            ((1,), {"k": masked}, "x.filled()"),
            ((1,), {"k": {"b": [masked]}}, "x['b'][0].filled()"),
        ):
            with pytest.raises(dlbridge.ConversionRefused) as refused:
                call(*arguments, **named)
            assert (refused.value.fix or "").startswith(fix)
            assert refused.value.fix in str(refused.value)


# --- answers that come later --------------------------------------------------------------------


@dlbridge.accepts("numpy")
async def doubled_later(x: Any) -> Any:
    await asyncio.sleep(0)
    assert type(x) is np.ndarray
    return x * 2, x


@dlbridge.accepts("numpy")
def counted(x: Any) -> Any:
    assert type(x) is np.ndarray
    told: list[Any] = []
    try:
        for i in range(2):
            told.append((yield x + i))
    except KeyError:
        yield x - 1
    finally:
        told.append("closed")
        x.sort()
    return x, told


@dlbridge.accepts("numpy")
async def counted_later(x: Any) -> Any:
    told: Any = 0
    try:
        while True:
            told = yield x + (told or 0)
            await asyncio.sleep(0)
    except KeyError:
        yield x - 1


def test_the_answer_of_a_coroutine_comes_back_in_the_callers_library() -> None:
    x = torch.ones(2)
    doubled, same = asyncio.run(doubled_later(x))
    assert isinstance(doubled, torch.Tensor) and doubled.tolist() == [2, 2] and same is x
    assert asyncio.run(dlbridge.torch_function(doubled_later)(np.ones(2)))[0].tolist() == [2, 2]
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(doubled_later)


def test_what_a_generator_gives_comes_back_in_the_callers_library() -> None:
    x = torch.tensor([2.0, 1.0])
    given = list(counted(x))
    assert all(isinstance(each, torch.Tensor) for each in given)
    assert [each.tolist() for each in given] == [[2, 1], [3, 2]]

    def through() -> Any:
        return (yield from counted(x))

    steps = through()
    assert next(steps).tolist() == [1, 2]  # sorted by the one before, in the same memory
    assert steps.send("told").tolist() == [2, 3]
    with pytest.raises(StopIteration) as ended:
        next(steps)
    assert ended.value.value[0] is x and ended.value.value[1] == ["told", None, "closed"]
    thrown = counted(x)
    next(thrown)
    assert isinstance(thrown.throw(KeyError()), torch.Tensor)
    with pytest.raises(ValueError, match="mine"):
        thrown.throw(ValueError("mine"))


def test_what_an_asynchronous_generator_gives_comes_back_so_too() -> None:
    x = torch.ones(2)

    async def steps() -> list[Any]:
        given = counted_later(x)
        found = [await anext(given), await given.asend(5), await given.athrow(KeyError())]
        ended = [each async for each in given]
        closed = counted_later(x)
        await anext(closed)
        await closed.aclose()
        return found + ended

    given = asyncio.run(steps())
    assert all(isinstance(each, torch.Tensor) for each in given)
    assert [each.tolist() for each in given] == [[1, 1], [6, 6], [0, 0]]


def test_jax_gets_the_types_that_it_has_whoever_answers() -> None:
    order = dlbridge.accepts("torch")(torch.sort)(jax.numpy.asarray([2.0, 1.0]))
    assert order.indices.tolist() == [1, 0]
    assert order.indices.dtype == jax.dtypes.canonicalize_dtype("int64")
