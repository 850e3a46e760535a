"""order="C" and writable=True: met by the view where it is so, else by a copy, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge

GRID = np.arange(12.0).reshape(3, 4)
BYTES = bytes(range(8))


def read_only() -> np.ndarray:
    array = GRID.copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "packed": lambda a: a,
    "transposed": lambda a: a.T,
    "every other": lambda a: a[:, ::2],
    "reversed": lambda a: a[::-1],
    "a column": lambda a: a[:, 1],
    "one row, stepped": lambda a: a[:1, ::1][:, :4],
    "a row of one": lambda a: a.T[:1, :1],
    "empty": lambda a: a[:0].T,
    "expanded": lambda a: np.broadcast_to(a[0], (5, 4)),
    "a scalar": lambda a: a[1, 1, ...],
    "fortran": lambda a: np.asfortranarray(a),
}
TARGETS = ["numpy", "torch"]


def as_numpy(result: Any) -> np.ndarray:
    return result if isinstance(result, np.ndarray) else result.detach().numpy()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["numpy", "torch"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_c_order_is_a_view_where_it_is_there_and_a_copy_elsewhere(
    road: str, layout: str, source: str, target: str
) -> None:
    array = LAYOUTS[layout](GRID.copy())
    if source == "torch":
        if layout == "reversed":
            pytest.skip("torch has no negative strides")
        x: Any = torch.from_numpy(array.copy()) if layout == "expanded" else torch.from_numpy(array)
        if layout == "expanded":
            x = torch.from_numpy(GRID[0].copy()).expand(5, 4)
    else:
        x = array
    told = dlbridge.explain(x, target, order="C")
    made = dlbridge.to(x, target, order="C")
    packed = array.flags.c_contiguous and layout != "expanded"
    assert as_numpy(made).flags.c_contiguous
    assert as_numpy(made).tolist() == array.tolist()
    assert told.view == packed
    if packed and array.size and layout != "a scalar":
        assert np.shares_memory(as_numpy(made), as_numpy(x))
    if not packed:
        assert told.bytes_copied == array.nbytes
        assert as_numpy(made).flags.writeable
        with pytest.raises(dlbridge.ConversionRefused, match="C order was asked for"):
            dlbridge.to(x, target, order="C", copy=False)


def test_the_object_itself_comes_back_where_it_is_as_asked(road: str) -> None:
    array, tensor = GRID.copy(), torch.ones(2, 3, requires_grad=True)
    assert dlbridge.to_numpy(array, order="C", writable=True) is array
    assert dlbridge.to_torch(tensor, order="C") is tensor
    assert dlbridge.to_numpy(array.T, order="C") is not array.T
    texts = np.array(["a", "b"])
    assert dlbridge.to_numpy(texts, order="C", writable=True) is texts


WRITABLE: dict[str, tuple[Callable[[], Any], bool]] = {  # made anew, and whether a view is enough
    "plain tensor": (lambda: torch.ones(2, 3), True),
    "plain array": (lambda: GRID.copy(), True),
    "bytearray": (lambda: bytearray(BYTES), True),
    "read-only array": (read_only, False),
    "bytes": (lambda: BYTES, False),
    "in a graph": (lambda: torch.ones(2, 3, requires_grad=True), False),
    "expanded tensor": (lambda: torch.ones(3).expand(2, 3), False),
    "broadcast array": (lambda: np.broadcast_to(np.ones(3), (2, 3)), False),
    "read-only managed tensor": (lambda: dlbridge.from_dlpack(read_only()), False),
    "conj": (lambda: torch.ones(2, dtype=torch.complex64).conj(), False),
}


@pytest.mark.parametrize("kind", WRITABLE)
def test_writable_is_a_view_where_one_may_write_and_a_copy_elsewhere(road: str, kind: str) -> None:
    make, is_view = WRITABLE[kind]
    x = make()
    told = dlbridge.explain(x, "numpy", writable=True)
    array = dlbridge.to_numpy(x, writable=True)
    assert (told.view, told.writable) == (is_view, True)
    assert array.flags.writeable
    assert array.tolist() == dlbridge.to_numpy(make()).tolist()
    array[...] = 7
    if not is_view:
        assert dlbridge.to_numpy(x).tolist() == dlbridge.to_numpy(make()).tolist()
        with pytest.raises(dlbridge.ConversionRefused) as refused:
            dlbridge.to_numpy(x, writable=True, copy=False)
        assert refused.value.fix.startswith("the call without copy=False to copy")
    else:
        assert np.all(dlbridge.to_numpy(x) == 7)


def test_a_writable_tensor_is_no_alias_of_what_is_read_only(road: str) -> None:
    x = read_only()
    alias = dlbridge.host.replace(readonly="alias")
    tensor = dlbridge.to(x, "torch", policy=alias, writable=True)
    tensor[0, 0] = 99
    assert x[0, 0] == 0
    told = dlbridge.explain(x, "torch", policy=alias, writable=True)
    assert not told.view and "writable memory was asked for" in " ".join(told.reasons)


def test_what_needs_no_copy_is_not_copied_under_the_strictest_policy(road: str) -> None:
    tensor = torch.ones(2, 3)
    array = dlbridge.to_numpy(tensor, policy="strict", order="C", writable=True)
    assert np.shares_memory(array, tensor.numpy())
    with pytest.raises(dlbridge.ConversionRefused, match=r'policy="host" to copy'):
        dlbridge.to_numpy(tensor.T, policy="strict", order="C")
    with pytest.raises(dlbridge.ConversionRefused, match="writable memory was asked for"):
        dlbridge.to_numpy(read_only(), policy="zero_copy", writable=True)


def test_needs_of_a_tree_are_needs_of_its_leaves(road: str) -> None:
    tree = {"a": [torch.ones(2, 3).T], "b": (read_only(), "text")}
    made = dlbridge.to_numpy(tree, order="C", writable=True)
    assert made["a"][0].flags.c_contiguous
    assert made["b"][0].flags.writeable
    assert made["b"][1] == "text"
    plans = dlbridge.explain(tree, "numpy", order="C", writable=True)
    assert not plans["a"][0].view and not plans["b"][0].view


def test_a_cast_meets_both_without_another_copy(road: str) -> None:
    told = dlbridge.explain(GRID.T, "torch", dtype="float32", order="C", writable=True)
    assert told.bytes_copied == GRID.size * 4


@pytest.mark.keeps_sources
def test_a_target_that_gives_no_writable_memory_says_so() -> None:
    pytest.importorskip("jax")
    told = dlbridge.explain(GRID.astype("f4"), "jax", writable=True)
    assert told.refused
    assert "gives nobody any" in " ".join(told.reasons)
    assert told.fix is None


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"order": "F"}, "order='F' is no order; use one of None, 'C'"),
        ({"order": 1}, "order=1 is no order; use one of None, 'C'"),
        ({"writable": "yes"}, "writable='yes' is no need; use one of None, False, True"),
        ({"out": np.empty((3, 4)), "order": "C"}, "out= is laid out as it is"),
        ({"out": np.empty((3, 4)), "writable": True}, "out= is laid out as it is"),
    ],
)
def test_a_need_that_is_none_is_a_value_error(needs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        dlbridge.to_numpy(GRID, **needs)
    assert said in str(error.value)
    assert not isinstance(error.value, dlbridge.ConversionRefused)


def test_no_need_is_no_need(road: str) -> None:
    array = dlbridge.to_numpy(torch.ones(2, 3).T, order=None, writable=False)
    assert not array.flags.c_contiguous
    assert dlbridge.to_numpy(read_only(), writable=False).flags.writeable is False


@pytest.mark.parametrize("kind", ["c8,i4", "u1,f2", "f8,i4"])
def test_strides_between_one_and_two_items_are_no_order(kind: str) -> None:
    x = np.zeros(4, kind)["f0" if kind != "u1,f2" else "f1"]
    assert dlbridge.to_numpy(x, order="C").flags.c_contiguous
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x, order="C", copy=False)
    assert dlbridge.loads(*dlbridge.dumps(x)).tolist() == x.tolist()


def test_a_tensor_that_is_to_be_written_to_is_no_leaf_and_no_expanded_one() -> None:
    for x in (torch.ones(2, requires_grad=True), torch.ones(1).expand(3)):
        made = dlbridge.to(x, "torch", writable=True)
        made.add_(1)
        assert made.tolist() == [2] * len(made) and x.tolist() == [1] * len(x)
        assert not dlbridge.explain(x, "torch", writable=True).view
    x = torch.ones(2)
    assert dlbridge.to(x, "torch", writable=True) is x


def test_a_sparse_tensor_lies_in_no_order() -> None:
    x = torch.eye(2).to_sparse()
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(x, order="C")
    dense = dlbridge.to_torch(x, order="C", policy=dlbridge.host.replace(layout="densify"))
    assert torch.equal(dense, torch.eye(2))


def test_a_type_is_asked_for_in_the_order_of_this_machine() -> None:
    x = np.arange(3, dtype=">f4")
    made = dlbridge.to_numpy(x, dtype="float32")
    assert made.dtype == np.dtype("f4") and made.tolist() == x.tolist()
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x, dtype="float32", copy=False)
    assert dlbridge.to_numpy(x) is x
