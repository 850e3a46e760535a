"""Functions of other extensions take tensors of any library through our type casters."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from dlb_support import settle

import dlbridge

core = dlbridge._core


@pytest.fixture(params=["nanobind", "pybind11"])
def casters(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"dlbridge_{request.param}_casters")


def matrix() -> np.ndarray:
    return np.arange(12, dtype="f4").reshape(3, 4)


def test_tensors_of_any_library_are_taken(casters: ModuleType, road: str) -> None:
    array = matrix()
    for source in (array, torch.from_numpy(array), dlbridge.from_dlpack(array), memoryview(array)):
        assert casters.rows(source) == 3
        assert casters.rows_of_view(source) == 3
        assert casters.sum(source) == array.sum()
    assert casters.sum(dlbridge.capsule(array)) == array.sum()
    both = (array, torch.from_numpy(array))
    assert casters.rows_of_eight(*(each[i:] for i in range(4) for each in both)) == 12


def test_strides_are_followed(casters: ModuleType) -> None:
    array = np.arange(240, dtype="f4").reshape(10, 24)
    for view in (array.T, array[::-1, ::-2], array[2:5, 3:9], array[:0]):
        assert casters.sum(view) == view.sum()


def test_a_writable_view_writes_into_the_callers_memory(casters: ModuleType, road: str) -> None:
    array = matrix()
    casters.fill(array, 5)
    assert (array == 5).all()
    tensor = torch.zeros(4, 3)
    casters.fill(tensor.T, 2)
    assert (tensor == 2).all()


def test_read_only_memory_is_never_written_to(casters: ModuleType, road: str) -> None:
    array = matrix()
    array.flags.writeable = False
    weights = torch.ones(3, 4, requires_grad=True)
    for source in (array, weights):
        assert casters.is_read_only(source)
        assert casters.sum(source) > 0
        with pytest.raises(BufferError, match="nobody may write"):
            casters.fill(source, 5)
    assert array[0, 1] == 1 and weights[0, 1] == 1


def test_a_refusal_arrives_as_it_is(casters: ModuleType, road: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="quantised"):
        casters.rows(torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8))
    with pytest.raises(dlbridge.ConversionRefused):
        casters.sum(np.array(["text"]))


class Failing:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **keywords: object) -> object:
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("mine")])
def test_the_producers_own_error_arrives(casters: ModuleType, error: BaseException) -> None:
    for function in (casters.rows, casters.sum, casters.kind):
        with pytest.raises(type(error)) as caught:
            function(Failing(error))
        assert caught.value is error
        error.__traceback__ = None  # which holds the producer


def test_what_is_no_tensor_is_a_type_error(casters: ModuleType) -> None:
    for function in (casters.rows, casters.sum):
        with pytest.raises(TypeError, match=r"incompatible|dlbridge\."):
            function("text")


def test_the_signature_says_what_is_taken(casters: ModuleType) -> None:
    assert "dlbridge.ManagedTensor" in casters.rows.__doc__
    assert "dlbridge.TensorView[float32, 2]" in casters.sum.__doc__
    with pytest.raises(TypeError, match="float32, 2"):
        casters.sum(matrix().astype("f8"))
    with pytest.raises(TypeError, match="float32, 2"):
        casters.sum(matrix()[0])


def test_an_overload_is_chosen_by_type_and_rank(casters: ModuleType, road: str) -> None:
    assert casters.kind(matrix()) == "matrix"
    assert casters.kind(torch.arange(3)) == "vector"
    assert casters.kind(torch.arange(3.0)) == "anything"
    assert casters.kind("text") == "anything"


def test_results_leave_as_whatever_is_named(casters: ModuleType, road: str) -> None:
    expected = [[0, 1, 2], [3, 4, 5]]
    assert type(casters.counted()) is dlbridge.ManagedTensor
    assert dlbridge.to_numpy(casters.counted()).tolist() == expected
    assert type(casters.counted_as("torch")) is torch.Tensor
    assert casters.counted_as("torch").tolist() == expected
    assert type(casters.counted_as("numpy")) is np.ndarray
    assert casters.counted_as("numpy").tolist() == expected
    with pytest.raises(ValueError, match="nowhere"):
        casters.counted_as("nowhere")


def test_nothing_is_left_behind(casters: ModuleType, road: str) -> None:
    array = matrix()
    tensor = torch.from_numpy(matrix())
    settle()
    before = core.live_managed_tensors(), sys.getrefcount(array), sys.getrefcount(tensor)
    for _ in range(50):
        casters.rows(array), casters.sum(tensor), casters.counted(), casters.counted_as("torch")
        casters.sum_or_none(array), casters.kind(array), casters.kind(array[0])
        with pytest.raises(ZeroDivisionError):
            casters.sum_after(array, lambda: 1 / 0)
        kept = casters.same(array)
        assert dlbridge.to_numpy(kept).ctypes.data == array.ctypes.data
        del kept
        for wrong in (array.astype("f8"), "text"):
            with pytest.raises(TypeError):
                casters.sum(wrong)
        with pytest.raises(ValueError, match="nowhere"):
            casters.counted_as("nowhere")
    settle()
    assert (core.live_managed_tensors(), sys.getrefcount(array), sys.getrefcount(tensor)) == before


def at_once(action: Callable[[], object]) -> None:
    action()


def on_another_thread(action: Callable[[], object]) -> None:
    other = threading.Thread(target=action)
    other.start()
    other.join()


@pytest.mark.parametrize("run", [at_once, on_another_thread])  # with the GIL, and without it
def test_a_view_is_valid_whatever_becomes_of_its_object(
    casters: ModuleType, run: Callable[[Callable[[], object]], None], road: str
) -> None:
    for given in (matrix(), matrix()[::-1], torch.from_numpy(matrix()), torch.ones(3, 4) * 5):
        expected, alone = float(given.sum()), [given]
        del given
        collected = functools.partial(run, gc.collect)
        assert casters.sum_after(alone.pop(), collected) == expected
    tensor = torch.arange(12.0).reshape(3, 4)
    turned = functools.partial(run, functools.partial(tensor.transpose_, 0, 1))
    assert casters.sum_after(tensor, turned) == 66
    exchanged = functools.partial(run, functools.partial(tensor.set_, torch.zeros(2, 2)))
    assert casters.sum_after(tensor, exchanged) == 66
    assert tensor.tolist() == [[0, 0], [0, 0]]


def test_a_policy_block_holds_for_extensions_too(casters: ModuleType, road: str) -> None:
    weights = torch.ones(3, 4, requires_grad=True)
    with (
        dlbridge.policy("strict"),
        pytest.raises(dlbridge.ConversionRefused, match="requires grad"),
    ):
        casters.rows(weights)
    assert casters.rows(weights) == 3
