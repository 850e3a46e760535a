"""Parameters of C++ functions keep their word: what is written arrives, what is asked for is so."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import settle

import dlbridge

core = dlbridge._core


@pytest.fixture(params=["nanobind", "pybind11"])
def casters(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"dlbridge_{request.param}_casters")


class Copying:
    """Says of what it hands out that it is a copy, which nobody else has."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = dlbridge.from_dlpack(array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **keywords: object) -> object:
        return self.array.__dlpack__(max_version=(1, 3), copy=True)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def copies() -> int:
    return dlbridge.stats().copies


# What a writing function would have to be given a private copy of.
COPIED = {
    "swapped": lambda: np.ones(3, ">f4"),
    "conj": lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
    "neg": lambda: torch._neg_view(torch.ones(3)),
    "copying": lambda: Copying(np.ones(3, "f4")),
    "read-only": lambda: read_only(np.ones(3, "f4")),
    "overlapping": lambda: np.lib.stride_tricks.as_strided(np.ones(1, "f4"), (3,), (0,)),
    "in a graph": lambda: torch.ones(3, requires_grad=True),
}


@pytest.mark.parametrize("name", COPIED)
def test_what_would_be_written_to_a_copy_is_refused(casters: Any, name: str, road: str) -> None:
    source = COPIED[name]()
    before = copies()
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        casters.scale(source, 3)
    assert copies() == before
    # The call that it names works, and keeps the values.
    call, rest = caught.value.fix.split(" and keep it")
    assert rest and "dlbridge.from_dlpack" in call
    kept = eval(call, {"x": source, "dlbridge": dlbridge})
    expected = 3 * dlbridge.to_numpy(kept).copy()
    casters.scale(kept, 3)
    assert dlbridge.to_numpy(kept).tolist() == expected.tolist()
    assert len(caught.value.reasons) > 0


@pytest.mark.parametrize("policy", ["host", "snapshot"])
def test_a_copy_that_the_caller_holds_is_written_to(casters: Any, policy: str) -> None:
    held = dlbridge.from_dlpack(np.ones(3, ">f4"), copy=True)
    with dlbridge.policy(policy):
        casters.scale(held, 3)
    assert dlbridge.to_numpy(held).tolist() == [3, 3, 3]
    capsule = dlbridge.capsule(held)
    casters.scale(capsule, 2)
    assert dlbridge.to_numpy(held).tolist() == [6, 6, 6]


def test_a_function_that_reads_gets_a_copy_once(casters: Any, road: str) -> None:
    swapped = np.arange(12, dtype=">f4").reshape(3, 4)
    before = copies()
    assert casters.sum(swapped) == 66
    assert casters.kind(swapped) == "anything"  # looked at only
    assert copies() == before + 1


def test_noconvert_means_a_view(casters: Any) -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    before = copies()
    assert casters.sum_of_view(array[::-1, ::2]) == array[:, ::2].sum()
    for wrong in (array.astype(">f4"), array.astype("f8")):
        with pytest.raises(TypeError, match="float32, 2"):
            casters.sum_of_view(wrong)
    assert copies() == before


def test_overloads_are_chosen_before_anything_is_copied(casters: Any, road: str) -> None:
    large = torch.ones(1 << 20, dtype=torch.complex64).conj()
    before = dlbridge.stats().bytes_copied
    with pytest.raises(TypeError):
        casters.one_of_four(large)
    assert dlbridge.stats().bytes_copied == before
    assert casters.one_of_four(large.reshape(2, -1)) == 4
    assert dlbridge.stats().bytes_copied == before + (8 << 20)


def test_a_capsule_is_taken_by_the_overload_that_fits(casters: Any) -> None:
    array = np.arange(3)
    for versioned in ((1, 3), None):
        assert casters.kind(dlbridge.capsule(array, max_version=versioned)) == "vector"
        assert casters.one_of_four(dlbridge.capsule(array, max_version=versioned)) == 3
        with pytest.raises(TypeError):
            casters.one_of_four(dlbridge.capsule(array.astype("i2"), max_version=versioned))
    settle()
    assert sys.getrefcount(array) == 2


def test_read_only_memory_goes_to_the_overload_that_reads(casters: Any, road: str) -> None:
    array = np.ones(3, "f4")
    assert casters.either(array) == "mutable"
    assert casters.either(read_only(array)) == "const"
    assert casters.either(torch.ones(3, requires_grad=True)) == "const"
    # A copy is needed: the writing one says so, or stands aside under noconvert().
    with pytest.raises(dlbridge.ConversionRefused):
        casters.either(np.ones(3, ">f4"))
    assert casters.aside(np.ones(3, ">f4")) == "const"
    assert casters.aside(np.ones(3, "f4")) == "mutable"


def test_needs_are_said_in_types(casters: Any, road: str) -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    assert casters.is_packed(array) and casters.is_packed(array.T)
    assert casters.address_of_snapshot(array) != array.ctypes.data
    assert casters.sum_cast(array.astype("i4")) == array.sum()
    with pytest.raises(TypeError):
        casters.sum_cast(array[0])
    casters.fill_strictly(array, 4)
    assert (array == 4).all()
    with pytest.raises(dlbridge.ConversionRefused, match="requires grad") as caught:
        casters.fill_strictly(torch.ones(3, 4, requires_grad=True), 4)
    assert "policy" not in (caught.value.fix or "")  # no block changes it


def test_a_parameter_alone_says_what_was_passed_and_what_was_wanted(casters: Any) -> None:
    assert casters.rows_alone(np.ones((3, 4), "f4")) == casters.rows_alone(torch.ones(3, 4)) == 3
    wanted = "expected a tensor of float32 of 2 dimensions, not a "
    for wrong, met in (
        (np.ones(3, "f4"), "numpy.ndarray of float32 of 1 dimension"),
        (torch.ones(3, 4).double(), "torch.Tensor of float64 of 2 dimensions"),
    ):
        with pytest.raises(TypeError, match=wanted + met):
            casters.rows_alone(wrong)
    with pytest.raises(TypeError, match="str"):
        casters.rows_alone("text")


def test_the_signature_says_what_is_needed(casters: Any) -> None:
    assert (
        "dlbridge.Needs[dlbridge.TensorView[float32, 2], C-contiguous]" in casters.is_packed.__doc__
    )
    assert "dlbridge.TensorView[float32, 1, in place]" in casters.scale.__doc__
    assert "dlbridge.ManagedTensor | None" in casters.rows_or_none.__doc__
    assert "dlbridge.TensorView[float32, 2] | None" in casters.sum_or_none.__doc__


def test_optional_parameters_take_none(casters: Any, road: str) -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    assert casters.rows_or_none(None) == casters.sum_or_none(None) == -1
    for source in (array, torch.from_numpy(array), array.astype(">f4")):
        assert casters.rows_or_none(source) == 3
        assert casters.sum_or_none(source) == 66
    with pytest.raises(TypeError):
        casters.sum_or_none(array[0])
    with pytest.raises(dlbridge.ConversionRefused):
        casters.rows_or_none(torch.ones(2, 2).to_sparse())


def test_perhaps_a_tensor_is_taken_by_value_in_a_list_and_as_a_result(casters: Any) -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    assert casters.rows_or_none_taken(None) == -1
    assert casters.rows_or_none_taken(array) == 3
    assert casters.count_of_none([array, None, array, None, None]) == 3
    assert casters.counted_or_none(False) is None
    assert casters.counted_or_none(True).shape == (2, 3)
    settle()
    assert sys.getrefcount(array) == 2


def test_tensors_in_a_list_are_taken(casters: Any, road: str) -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    assert casters.rows_of_all([array, torch.from_numpy(array)]) == 6
    with pytest.raises((TypeError, dlbridge.ConversionRefused)):
        casters.rows_of_all([array, torch.ones(2, 2).to_sparse()])
    settle()
    assert sys.getrefcount(array) == 2


def test_a_refusal_names_what_its_caller_can_do(casters: Any, road: str) -> None:
    sparse = torch.ones(2, 2).to_sparse()
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        casters.sum(sparse)
    assert "a block of dlbridge.policy(dlbridge.host.replace(layout=" in caught.value.fix
    with dlbridge.policy(dlbridge.host.replace(layout="densify")):
        assert casters.sum(sparse) == 4


def test_errors_of_a_body_keep_their_class(casters: Any) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="refused in the body") as caught:
        casters.refuse_in_body()
    assert caught.value.fix == "the fix" and caught.value.reasons == ("the reason",)
    with pytest.raises(dlbridge.ConversionRefused, match=r"float32.*float64"):
        casters.first_of(np.ones(3, "f4"))
    with pytest.raises(ValueError, match="not a refusal"):
        casters.fail_otherwise()
    with pytest.raises(KeyError, match="of Python's"):
        casters.fail_in_python()


def test_a_result_that_failed_is_the_error_that_it_was(casters: Any, road: str) -> None:
    array = np.arange(3)
    assert dlbridge.to_numpy(casters.taken_in_body(array)).ctypes.data == array.ctypes.data
    taken = casters.taken_by_cast(array)
    assert dlbridge.to_numpy(taken).ctypes.data == array.ctypes.data
    with pytest.raises(dlbridge.ConversionRefused, match="sparse"):
        casters.taken_in_body(torch.ones(2, 2).to_sparse())
    with pytest.raises(TypeError, match="expected an array or tensor"):
        casters.taken_in_body("text")
    with pytest.raises(ValueError, match="empty ManagedTensor"):
        casters.empty()


def test_plain_c_is_told_what_was_passed_and_what_was_wanted(casters: Any, road: str) -> None:
    array = np.ones(3, "f4")
    assert dlbridge.to_numpy(casters.taken_as_row(array)).ctypes.data == array.ctypes.data
    assert dlbridge.to_numpy(casters.taken_as_row(array.astype(">f4"))).tolist() == [1, 1, 1]
    wanted = "expected a tensor of float32 of 1 dimension, not a "
    for source, passed in (
        (np.ones((2, 2)), "numpy.ndarray of float64 of 2 dimensions on cpu"),
        (torch.ones(2, 2), "torch.Tensor of float32 of 2 dimensions on cpu"),
    ):
        with pytest.raises(TypeError, match=wanted + passed):
            casters.taken_as_row(source)


def test_nothing_is_left_behind_where_nothing_fits(casters: Any, road: str) -> None:
    array = np.ones(3, ">f4")
    tensor = torch.ones(3, dtype=torch.complex64).conj()
    settle()
    before = core.live_managed_tensors(), sys.getrefcount(array), sys.getrefcount(tensor)
    for _ in range(20):
        for source in (array.astype(">i2"), tensor, dlbridge.capsule(array.astype("i2"))):
            with pytest.raises(TypeError):
                casters.one_of_four(source)
        with pytest.raises(dlbridge.ConversionRefused):
            casters.scale(array, 3)
    del source
    settle()
    assert (core.live_managed_tensors(), sys.getrefcount(array), sys.getrefcount(tensor)) == before
