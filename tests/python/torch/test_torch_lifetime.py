"""Law 3: whatever the torch tensor does, a view of it keeps its values, or the operation raises."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import lifetime_scenarios
import numpy as np
import pytest
import torch
from dlb_support import scenario_outcomes, settle
from lifetime_scenarios import churn

import dlbridge

SCRIPT = Path(lifetime_scenarios.__file__)
NAMES = lifetime_scenarios.scenario_names()
# Swapping a storage's contents must be survived where LibTorch is linked; else it may raise.
SHARING = [name for name in NAMES if "share_memory" in name or "queue" in name]


SWAPS = hasattr(torch.UntypedStorage, "_swap_data_ptr_")


def outcomes(road: str) -> dict[str, str]:
    return scenario_outcomes(SCRIPT, [road], NAMES)


_cache: dict[str, dict[str, str]] = {}


@pytest.mark.parametrize("name", NAMES)
def test_a_view_keeps_its_values_or_the_operation_raises(road: str, name: str) -> None:
    if road == "portable" and "copy-on-write" in name and not SWAPS:
        pytest.skip("before torch 2.12 nothing in Python can make such a clone raise")
    if road not in _cache:
        _cache[road] = outcomes(road)
    outcome = _cache[road][name]
    if road == "linked" and name in SHARING:
        assert outcome == "kept"
    else:
        assert outcome in ("kept", "raised")


def test_the_view_outlives_its_tensor(road: str) -> None:
    tensor = torch.arange(1000.0)
    view = dlbridge.to_numpy(tensor)
    expected = view.copy()
    gone = weakref.ref(tensor)
    del tensor
    churn(1000)
    assert np.array_equal(view, expected)
    view[0] = 5  # and stays writable memory
    assert view[0] == 5
    del view
    settle()
    assert gone() is None


def test_a_view_does_not_keep_the_tensor_object_alive_for_ever(road: str) -> None:
    tensor = torch.arange(10.0)
    gone = weakref.ref(tensor)
    views = [dlbridge.to_numpy(tensor) for _ in range(3)]
    managed = dlbridge.from_dlpack(tensor)
    del tensor, views, managed
    settle()
    assert gone() is None


def test_the_metadata_of_a_managed_tensor_does_not_follow_the_tensor(road: str) -> None:
    import dlbridge_probe as probe

    tensor = torch.arange(6.0).reshape(2, 3)
    managed = dlbridge.from_dlpack(tensor)
    capsule = dlbridge.capsule(tensor)
    tensor.t_()
    tensor.unsqueeze_(0)
    assert tuple(tensor.shape) == (1, 3, 2)
    assert managed.shape == (2, 3) and managed.strides == (3, 1)
    assert probe.fields(capsule)["shape"] == (2, 3)
    assert probe.fields(capsule)["strides"] == (3, 1)
    assert dlbridge.to_numpy(managed).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_tensor_itself_is_right_after_its_memory_was_shared(road: str) -> None:
    tensor = torch.arange(6.0)
    view = dlbridge.to_numpy(tensor)
    try:
        tensor.share_memory_()
    except RuntimeError:
        assert road == "portable"
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]
    assert view.tolist() == [0, 1, 2, 3, 4, 5]
    tensor += 1
    assert tensor.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_tensor_can_be_shared_when_no_view_was_ever_made(road: str) -> None:
    tensor = torch.arange(6.0)
    dlbridge.explain(tensor, "numpy")  # changes nothing at the source
    tensor.share_memory_()
    assert tensor.is_shared()
    dlbridge.to_numpy(torch.arange(6.0), copy=True)
    other = torch.arange(6.0)
    dlbridge.to_numpy(other, copy=True)
    other.resize_(1000)  # a copy leaves no mark
    assert other.numel() == 1000


def test_views_of_shared_memory_stay_views(road: str) -> None:
    tensor = torch.arange(6.0).share_memory_()
    view = dlbridge.to_numpy(tensor)
    tensor.share_memory_()  # nothing to do any more
    view[0] = 7
    assert tensor[0] == 7


def test_many_views_of_one_storage_die_in_any_order(road: str) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    views = [
        dlbridge.to_numpy(tensor),
        dlbridge.to_numpy(tensor[1:]),
        dlbridge.to_numpy(tensor.t()),
    ]
    views[0][1, 0] = 99
    assert views[1][0, 0] == views[2][0, 1] == tensor[1, 0] == 99
    del views[0], tensor
    churn(12)
    assert views[0][0, 0] == 99
    del views[0]
    churn(12)
    assert views[0][0, 1] == 99


def test_copy_on_write_storage_is_not_written_through(road: str) -> None:
    first = torch.arange(4.0)
    second = torch._lazy_clone(first)
    view = dlbridge.to_numpy(second)
    view[...] = 9
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [9, 9, 9, 9]


def test_a_tensor_over_an_array_keeps_the_array_alive(road: str) -> None:
    array = np.arange(1000.0)
    tensor = dlbridge.to_torch(array)
    # NumPy has no lock for this: the reference that the tensor holds is what makes it raise.
    with pytest.raises(ValueError, match="resize"):
        array.resize(5)
    del array
    churn(2000)
    assert tensor[-1] == 999


def test_a_tensor_over_an_array_cannot_be_resized_over_its_end(road: str) -> None:
    tensor = dlbridge.to_torch(np.arange(4.0))
    with pytest.raises(RuntimeError, match="resiz"):
        tensor.clone().set_(tensor).resize_(1000)  # torch leaves the shape changed: not of ours
    with pytest.raises(RuntimeError, match="resiz"):
        tensor.untyped_storage().resize_(0)
    assert tensor.tolist() == [0, 1, 2, 3]


def test_sharing_a_tensor_over_an_array_moves_the_tensor_only(road: str) -> None:
    array = np.arange(1000.0)
    tensor = dlbridge.to_torch(array)
    back = dlbridge.to_numpy(tensor)
    try:
        tensor.share_memory_()
    except RuntimeError:
        assert road == "portable"
    gc.collect()
    churn(2000)
    assert array[-1] == back[-1] == tensor[-1] == 999


def test_what_is_in_a_graph_keeps_its_values_and_its_gradient(road: str) -> None:
    weight = torch.ones(3, requires_grad=True)
    out = (weight * 2).exp()
    view = dlbridge.to_numpy(out)
    expected = view.copy()
    out.sum().backward()
    assert np.array_equal(view, expected)
    assert torch.allclose(weight.grad, 2 * out.detach())
    del out, weight
    churn(3)
    assert np.array_equal(view, expected)


class Owner(np.ndarray):
    """An array of no known kind: somebody may watch its end."""


@pytest.mark.parametrize(
    "array",
    [np.zeros(20_000), np.arange(6.0).view(Owner), np.ndarray((4,), "f4", buffer=bytearray(16))],
    ids=["large", "a subclass", "memory of somebody else"],
)
def test_an_array_below_a_tensor_is_let_go_when_python_goes_on(
    road: str, array: np.ndarray
) -> None:
    before = sys.getrefcount(array)
    for make in (dlbridge.to_torch, lambda x: torch.nn.Parameter(dlbridge.to_torch(x))):
        tensor = make(array)
        assert sys.getrefcount(array) == before + 1
        del tensor
        for _ in range(2):  # no call of ours, but one of Python's loops
            pass
        assert sys.getrefcount(array) == before


def test_a_small_array_below_a_tensor_is_let_go_by_the_next_call_of_ours(road: str) -> None:
    array = np.arange(6.0)
    before = sys.getrefcount(array)
    for part in (slice(None), slice(2, None)):
        tensor = dlbridge.to_torch(array[part])
        del tensor
        dlbridge.from_dlpack(np.zeros(1))
        assert sys.getrefcount(array) == before


def test_few_small_arrays_wait_for_the_next_call_of_ours(road: str) -> None:
    array = np.arange(6.0)
    before = sys.getrefcount(array)
    tensors = [dlbridge.to_torch(array) for _ in range(100)]
    tensors.clear()
    for _ in range(2):
        pass
    assert sys.getrefcount(array) <= before + 16
    settle()
    assert sys.getrefcount(array) == before


class Witness:
    """Makes and drops tensors over an array while it dies."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __del__(self) -> None:
        for _ in range(10):
            dlbridge.to_torch(self.array)


def test_tensors_that_die_in_the_death_of_a_tensor_let_go_too(road: str) -> None:
    array = np.arange(6.0)
    before = sys.getrefcount(array)
    tensor = dlbridge.to_torch(array)
    tensor.witness = Witness(array)  # type: ignore[attr-defined]
    view = dlbridge.to_torch(array).requires_grad_()
    witness = Witness(array)
    view.register_hook(lambda grad, witness=witness: grad)
    del tensor, view, witness
    gc.collect()
    settle()
    assert sys.getrefcount(array) == before
