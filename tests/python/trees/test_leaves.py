"""What becomes of each leaf of a tree: a cast is for its kind, and what is no number stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dlbridge

NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"

KINDS: dict[str, list[str]] = {
    "truth": ["bool"],
    "integer": ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
    "floating": ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"],
    "complex": ["complex64", "complex128"],
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


def array_of(name: str) -> np.ndarray:
    return np.ones(3).astype(getattr(ml_dtypes, name, None) or name)


@pytest.mark.parametrize("asked", KIND_OF)
@pytest.mark.parametrize("target", ["numpy", "torch", "dlbridge"])
def test_a_dtype_is_for_the_leaves_of_its_own_kind(asked: str, target: str) -> None:
    tree = {name: array_of(name) for name in KIND_OF}
    made = dlbridge.to([tree, "text"], target, dtype=asked)[0]
    for name, leaf in made.items():
        wanted = asked if KIND_OF[name] == KIND_OF[asked] else name
        assert str(leaf.dtype).removeprefix("torch.") == wanted
        assert dlbridge.to_numpy(leaf, dtype="complex128").tolist() == [1, 1, 1]
        if wanted == name:
            assert dlbridge.from_dlpack(leaf).data_ptr == tree[name].ctypes.data


@given(
    st.dictionaries(st.text(max_size=2), st.sampled_from(sorted(KIND_OF)), min_size=1), st.data()
)
def test_leaves_of_other_kinds_are_the_same_without_a_dtype(names: Any, data: Any) -> None:
    asked = data.draw(st.sampled_from(sorted(KIND_OF)))
    tree = {key: array_of(name) for key, name in names.items()}
    made = dlbridge.to_numpy(tree, dtype=asked)
    for key, name in names.items():
        assert (made[key] is tree[key]) == (KIND_OF[name] != KIND_OF[asked] or name == asked)


def test_labels_and_images_keep_their_values(road: str) -> None:
    batch = {"image": torch.tensor([0.25, 0.75]), "label": torch.tensor([7])}
    narrow = dlbridge.to_numpy(batch, dtype="int32")
    assert narrow["image"].tolist() == [0.25, 0.75] and narrow["label"].dtype == np.int32
    half = dlbridge.to_numpy(batch, dtype=torch.float16)
    assert half["image"].dtype == np.float16 and half["label"].dtype == np.int64
    plans: Any = dlbridge.explain(batch, "numpy", dtype="int32")
    assert plans["image"].view and plans["label"].steps == ("cast",)
    # Where it is no tree the cast is what was asked for.
    assert dlbridge.to_numpy(batch["image"], dtype="int32").tolist() == [0, 0]


def test_a_cast_of_a_kind_is_refused_where_copies_are(road: str) -> None:
    batch = {"image": torch.tensor([0.25]), "label": torch.tensor([7])}
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(batch, dtype="int32", copy=False)
    assert dlbridge.to_numpy(batch, dtype="complex64", copy=False)["label"].dtype == np.int64


def small(name: str, **fields: Any) -> None:
    capabilities = dlbridge.Capabilities(result=name, read_only="honours", **fields)
    dlbridge.register(dlbridge.Library(name=name, capabilities=capabilities, take=lambda x: x))


def test_a_fix_of_one_leaf_does_no_harm_to_the_others() -> None:
    small("narrow_one", dtypes=("float32", "int32"))
    batch = {"image": np.array([0.25, 0.75], "f4"), "label": np.array([7, 8])}
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to(batch, "narrow_one")
    fix = caught.value.fix or ""
    assert 'dtype="int32"' in fix and "x['label']" in fix and "x['label']" in str(caught.value)
    made = dlbridge.to(batch, "narrow_one", dtype="int32")
    assert np.asarray(made["image"]).tolist() == [0.25, 0.75]
    assert np.asarray(made["label"]).tolist() == [7, 8]


def noted(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", []) if sys.version_info >= (3, 11) else ["at x['deep'][1]"]


@pytest.mark.parametrize("bad", ["x.to_dense()", "x.filled()"])
def test_a_refusal_of_a_leaf_names_it_in_its_fix(bad: str) -> None:
    leaf: Any = torch.eye(2).to_sparse() if "dense" in bad else np.ma.array([1.0, 2.0], mask=[0, 1])
    tree = {"deep": [np.ones(2), leaf]}
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_torch(tree) if "filled" in bad else dlbridge.to_numpy(tree)
    error = caught.value
    call = "x['deep'][1]" + bad[1:]
    assert error.fix is not None and call in error.fix and bad not in error.fix
    assert call in str(error) and error.plan.fix == error.fix
    assert noted(error) == ["at x['deep'][1]"]
    x = tree
    assert isinstance(eval(call, {"x": x}), (np.ndarray, torch.Tensor))


def test_the_plan_of_a_leaf_speaks_of_the_leaf() -> None:
    plans: Any = dlbridge.explain({"a": torch.eye(2).to_sparse()}, "numpy")
    assert plans["a"].refused and "x.to_dense()" in plans["a"].fix


NO_NUMBERS: dict[str, Callable[[], np.ndarray]] = {
    "texts": lambda: np.array(["a.png", "b.png"]),
    "one text": lambda: np.array("a.png"),
    "no text": lambda: np.array([], "U5"),
    "bytes": lambda: np.array([b"a", b"b"]),
    "objects": lambda: np.array([{"a": 1}, None], dtype=object),
    "tensors": lambda: np.array([torch.ones(1), None], dtype=object),
    "dates": lambda: np.array(["2024-01-01"], "M8[D]"),
    "differences": lambda: np.array([1, 2], "m8[s]"),
    "structs": lambda: np.zeros(2, [("a", "f4"), ("b", "U3")]),
    "raw": lambda: np.zeros(2, "V8"),
    "strided texts": lambda: np.array(["a", "b", "c"])[::-2],
    "read-only texts": lambda: np.broadcast_to(np.array(["a"]), (3,)),
    "records": lambda: np.rec.array([(1, "a")], dtype=[("unit", "i4"), ("b", "U3")]),
}
if NUMPY_2:
    NO_NUMBERS["variable texts"] = lambda: np.array(["a", "b"], dtype=np.dtypes.StringDType())


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("target", ["numpy", "torch", "dlbridge"])
def test_arrays_of_no_numbers_stay_in_a_tree(name: str, target: str) -> None:
    array = NO_NUMBERS[name]()
    tree = {"x": np.ones(2), "other": [array]}
    for arguments in ({}, {"copy": False}, {"dtype": "float32"}, {"policy": "zero_copy"}):
        assert dlbridge.to(tree, target, **arguments)["other"][0] is array  # type: ignore[arg-type]
    plan: Any = dlbridge.explain(tree, target)["other"][0]  # type: ignore[index]
    assert not plan.refused and plan.view and plan.bytes_copied == 0
    assert plan.result == "numpy.ndarray" and plan.writable == array.flags.writeable
    assert (
        dlbridge.as_namespace(target if target != "dlbridge" else "torch", tree)[1][0]["other"][0]
        is array
    )


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_arrays_of_no_numbers_are_refused_by_strict_and_by_themselves(name: str) -> None:
    array = NO_NUMBERS[name]()
    for target in ("torch", "dlbridge"):
        for tree, policy in (([np.ones(1), array], "strict"), (array, "host")):
            with pytest.raises(dlbridge.ConversionRefused, match="DLPack has no such type"):
                dlbridge.to(tree, target, policy=policy)
        assert dlbridge.explain(array, target).refused
    # To NumPy it is NumPy's own, whatever the policy.
    assert dlbridge.to_numpy([array], policy="strict")[0] is array


ASKED: list[dict[str, Any]] = [{"copy": True}, {"order": "C"}, {"writable": True}]


@pytest.mark.parametrize("name", [*NO_NUMBERS, "longdouble"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: next(iter(asked)))
def test_numpy_copies_arrays_of_no_numbers_itself(name: str, asked: dict[str, Any]) -> None:
    whole = NO_NUMBERS[name]() if name in NO_NUMBERS else np.arange(4, dtype="longdouble")
    locked = whole.copy()
    locked.flags.writeable = False
    for array in (whole, whole[..., ::-1] if whole.ndim else whole, locked):
        met = array.flags.c_contiguous if "order" in asked else array.flags.writeable
        plan = dlbridge.explain(array, "numpy", **asked)
        for made in (
            dlbridge.to_numpy(array, **asked),
            dlbridge.to_numpy([array, torch.ones(1)], **asked)[0],
            dlbridge.to_numpy(array, async_=True, **asked).result(),
        ):
            assert (type(made) is np.ndarray and made.dtype == array.dtype) or made is array
            assert made.tolist() == array.tolist()
            assert plan.view == (made is array) == (met and "copy" not in asked)
            assert plan.writable == made.flags.writeable
            if not plan.view:
                assert made.flags.c_contiguous and not np.shares_memory(made, array)
                assert plan.bytes_copied == made.nbytes and plan.steps == ("repack",)
        if "copy" not in asked and not plan.view:
            with pytest.raises(dlbridge.ConversionRefused, match="without copy=False"):
                dlbridge.to_numpy(array, copy=False, **asked)


@pytest.mark.parametrize("name", ["longdouble", "clongdouble"])
def test_numbers_that_dlpack_lacks_are_refused_in_trees_too(name: str) -> None:
    array = np.ones(2, getattr(np, name))
    with pytest.raises(dlbridge.ConversionRefused, match="astype"):
        dlbridge.to_torch({"a": array, "b": np.ones(1)})
    assert dlbridge.to_numpy({"a": array})["a"] is array


TEXTS = [name for name in NO_NUMBERS if "text" in name or name == "bytes"]


@pytest.mark.parametrize("name", TEXTS)
def test_the_fix_for_texts_gives_equal_ones_equal_numbers(name: str) -> None:
    x = NO_NUMBERS[name]()
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_torch(x)
    call = (caught.value.fix or "").partition(" (")[0]
    numbers = dlbridge.to_torch(eval(call, {"np": np, "x": x}))
    assert numbers.shape == x.shape and not numbers.is_floating_point()
    for i, one in enumerate(x.ravel().tolist()):
        for j, other in enumerate(x.ravel().tolist()):
            assert (one == other) == bool(numbers.ravel()[i] == numbers.ravel()[j])


def test_functions_of_trees_pass_what_is_no_number() -> None:
    names = np.array(["a", "b"])

    @dlbridge.accepts("torch")
    def function(batch: Any) -> Any:
        assert batch["names"] is names and isinstance(batch["x"], torch.Tensor)
        return batch["names"], batch["x"] + 1

    kept, more = function({"names": names, "x": np.ones(2)})
    assert kept is names and isinstance(more, np.ndarray) and more.tolist() == [2, 2]
    # The texts say nothing of where the caller's numbers are.
    assert isinstance(function({"names": names, "x": torch.ones(2)})[1], torch.Tensor)


class Shelf:
    """Without a protocol: its library alone knows how it is read."""

    def __init__(self, *books: Any) -> None:
        self.books = books


def read_shelf(x: Any) -> Any:
    if any(isinstance(book, str) for book in x.books):
        raise dlbridge.ConversionRefused("cannot take a shelf in: it holds texts")
    if not x.books:
        raise TypeError("a shelf of no books is no array")
    return np.asarray(x.books)


Shelf.__module__ = "shelves_of_leaves.core"
SHELVES = dlbridge.Library(name="shelves_of_leaves", read=read_shelf)


def test_what_only_its_library_can_read_is_a_leaf_as_it_is_by_itself(road: str) -> None:
    dlbridge.register(SHELVES)
    shelf, empty = Shelf(1.5, 2.5), Shelf()
    tree = dlbridge.to_torch([shelf, {"again": shelf, "empty": empty}])
    assert tree[0].tolist() == dlbridge.to_torch(shelf).tolist() == [1.5, 2.5]
    assert tree[1]["again"] is tree[0] and tree[1]["empty"] is empty
    plans: Any = dlbridge.explain([shelf, empty], "torch")
    assert plans[0].view and plans[1] is empty
    with pytest.raises(dlbridge.ConversionRefused, match="it holds texts"):
        dlbridge.to_numpy([Shelf("one")])
    assert dlbridge.accepts("numpy")(lambda x, y: (x + 1, y))(shelf, empty)[1] is empty
    assert dlbridge.accepts("torch")(lambda x: type(x))(shelf) is torch.Tensor
