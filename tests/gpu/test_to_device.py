"""To a GPU: from NumPy and torch, into torch's memory and into our own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlbridge

pytestmark = pytest.mark.usefixtures("road")

ARRAYS = {
    "plain": lambda: np.random.default_rng(0).random((37, 411), np.float32),
    "transposed": lambda: np.random.default_rng(0).random((1200, 411), np.float32).T,
    "reversed": lambda: np.random.default_rng(0).random((500, 3000))[::-1, ::-2],
    "broadcast": lambda: np.broadcast_to(np.arange(5.0), (700, 5)),
    "swapped": lambda: np.arange(1000.0).astype(">f8"),
    "read_only": lambda: np.arange(3 * 2**20),
    "empty": lambda: np.empty((0, 3)),
    "one": lambda: np.array(7.5),
    "bool": lambda: np.arange(100) % 3 == 0,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_arrive_with_their_values(name: str) -> None:
    array = ARRAYS[name]()
    if name == "read_only":
        array.flags.writeable = False
    tensor = dlbridge.to_torch(array, device="cuda")
    assert tensor.device == torch.device("cuda", 0) and tensor.is_contiguous()
    assert np.array_equal(tensor.cpu().numpy(), array.astype(array.dtype.newbyteorder("=")))


def test_the_array_may_be_written_to_at_once() -> None:
    for size in (100, 2**22):
        for array in (np.ones(size, np.float32), dlbridge.pinned_empty(size)):
            array[:] = 1
            tensor = dlbridge.to_torch(array, device="cuda")
            array[:] = 2
            assert bool((tensor == 1).all())


def test_a_cast_on_the_way() -> None:
    array = np.random.default_rng(0).random((700, 800))
    tensor = dlbridge.to_torch(array, device="cuda", dtype="float16")
    assert tensor.dtype is torch.float16
    assert np.array_equal(tensor.cpu().numpy(), array.astype(np.float16))


def test_a_tensor_of_the_host() -> None:
    tensor = torch.randn(30, 40, dtype=torch.complex64).mH
    there = dlbridge.to_torch(tensor, device="cuda")
    assert torch.equal(there.cpu(), tensor.resolve_conj())


def test_the_plan_names_the_rung() -> None:
    plan = dlbridge.explain(np.ones(3), "torch", device="cuda")
    assert plan.steps == ("copy to device",) and plan.notes == ("dlbridge copies it by CUDA",)


def test_a_managed_tensor_of_our_own_memory_goes_there_and_back() -> None:
    array = np.random.default_rng(0).random((300, 4000))
    managed = dlbridge.from_dlpack(array, device="cuda")
    assert managed.device == (2, 0) and not managed.readonly
    assert np.array_equal(dlbridge.to_numpy(managed), array)
    tensor = dlbridge.to_torch(managed)
    assert tensor.data_ptr() == managed.data_ptr
    assert np.array_equal(tensor.cpu().numpy(), array)
    back = dlbridge.from_dlpack(managed, device="cpu")
    assert back.device == (1, 0) and np.array_equal(np.asarray(back), array)


def test_copies_on_the_device() -> None:
    managed = dlbridge.from_dlpack(torch.randn(50, 60, device="cuda").T)
    tensor = dlbridge.to_torch(managed, copy=True)
    assert tensor.data_ptr() != managed.data_ptr
    assert torch.equal(tensor, dlbridge.to_torch(managed))
    half = dlbridge.to_torch(managed, dtype="float16")
    assert torch.equal(half, dlbridge.to_torch(managed).half())
    x = torch.randn(8, device="cuda")
    other = dlbridge.to_torch(x, copy=True)
    assert other.data_ptr() != x.data_ptr() and torch.equal(other, x)


def test_reduced_by_a_round_trip_nothing_changes() -> None:
    x = torch.randint(-(2**62), 2**62, (513, 129), device="cuda")
    again = dlbridge.to_torch(dlbridge.to_numpy(x), device="cuda")
    assert torch.equal(again, x)
