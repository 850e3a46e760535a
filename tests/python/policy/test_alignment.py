"""Elements at addresses that are no multiple of their size: NumPy reads them where they lie, as our
own tensors and capsules do, which read nothing; whoever loads by type gets a copy, or a refusal.
Such a load ends the process, for some types here and for more elsewhere.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import PRESETS, address, is_private, settle, torch_bytes

import dlbridge

COPIED = dict(zip(PRESETS, ("refuse", "copy", "refuse", "copy"), strict=True))
VIEW = dict(zip(PRESETS, ("view", "view", "view", "copy"), strict=True))

WIDE = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", "bfloat16")
NARROW = ("?", "i1", "u1", "float8_e5m2")


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def at(offset: int, name: str, shape: tuple[int, ...] = (5,)) -> np.ndarray:
    """Different numbers in memory that begins so many bytes behind a multiple of 64."""
    dtype = dtype_of(name)
    raw = np.zeros(dtype.itemsize * math.prod(shape) + 128, "u1")
    start = -address(raw) % 64 + offset
    array = raw[start : start + dtype.itemsize * math.prod(shape)].view(dtype).reshape(shape)
    array[...] = np.arange(1, 1 + math.prod(shape)).reshape(shape).astype(dtype)
    return array


def odd(name: str) -> Iterator[np.ndarray]:
    """An array at every address that is no multiple of its element's size."""
    return (at(offset, name) for offset in range(1, dtype_of(name).itemsize))


def packed(name: str, gap: int = 1) -> np.ndarray:
    """The field of a record without padding; its stride is a multiple of its size."""
    size = dtype_of(name).itemsize
    record = np.dtype([("gap", f"V{gap}"), ("x", dtype_of(name)), ("rest", f"V{size - gap}")])
    array = np.zeros(4, record)["x"]
    array[...] = np.arange(1, 5).astype(array.dtype)
    return array


UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
try:
    torch.ones(1, dtype=torch.uint16)[torch.arange(1)]
    ROWS_OF_UNSIGNED = True
except RuntimeError:  # a NotImplementedError since 2.5
    ROWS_OF_UNSIGNED = False


def outcome(plan: dlbridge.Plan) -> str:
    return "refuse" if plan.refused else "view" if plan.view else "copy"


def same_as(tensor: torch.Tensor, array: np.ndarray) -> None:
    """Element by element, by loads of torch's own; the tensor has to be where it may load."""
    assert tensor.data_ptr() % tensor.element_size() == 0
    assert tuple(tensor.shape) == array.shape
    assert torch_bytes(tensor) == array.tobytes()
    # An older torch takes no rows out of unsigned integers but bytes.
    if tensor.dim() and (ROWS_OF_UNSIGNED or tensor.dtype not in UNSIGNED):
        picked = tensor[torch.arange(len(tensor))]  # the call that ends a process
        assert torch_bytes(picked) == array.tobytes()


def refused(call: Callable[[], Any], needed: int) -> str:
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        call()
    assert f"no multiple of {needed} bytes" in str(caught.value)
    assert any("alignment" in reason for reason in caught.value.reasons)
    assert caught.value.fix is not None
    return caught.value.fix


# --- to torch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", WIDE)
def test_torch_gets_a_copy_or_a_refusal(road: str, name: str, preset: str) -> None:
    for array in odd(name):
        plan = dlbridge.explain(array, "torch", policy=preset)
        assert outcome(plan) == COPIED[preset]
        if plan.refused:
            fix = refused(lambda a=array: dlbridge.to_torch(a, policy=preset), array.itemsize)
            assert fix.startswith('policy="host" to copy')
            continue
        tensor = dlbridge.to_torch(array, policy=preset)
        same_as(tensor, array)
        assert plan.bytes_copied == array.nbytes and plan.writable
        assert any("align" in reason for reason in plan.reasons)


@pytest.mark.parametrize("name", WIDE)
def test_a_forbidden_copy_is_refused_and_the_fix_works(road: str, name: str) -> None:
    for array in odd(name):
        fix = refused(lambda a=array: dlbridge.to_torch(a, copy=False), array.itemsize)
        assert fix == "the call without copy=False to copy"
        same_as(dlbridge.to_torch(array), array)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one element": lambda a: a[2:3, 1:2],
    "0-d": lambda a: a[1, 2, ...],
    "Fortran order": lambda a: a.T,
    "stepped": lambda a: a[::2, 1::2],
    "reversed": lambda a: a[::-1],
    "expanded": lambda a: np.broadcast_to(a[0], (3, 4)),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", WIDE)
def test_every_layout_is_copied(road: str, name: str, layout: str) -> None:
    array = LAYOUTS[layout](at(1, name, (4, 4)))
    for preset, answer in COPIED.items():
        assert outcome(dlbridge.explain(array, "torch", policy=preset)) == answer
        if answer == "copy":
            same_as(dlbridge.to_torch(array, policy=preset), array)


@pytest.mark.parametrize("name", WIDE)
def test_what_has_no_elements_lies_anywhere(road: str, name: str) -> None:
    for array in (at(1, name, (0, 3)), at(1, name)[2:2], at(1, name, (3, 4))[:, 4:]):
        assert outcome(dlbridge.explain(array, "torch", policy="strict")) == "view"
        assert tuple(dlbridge.to_torch(array, policy="strict").shape) == array.shape


@pytest.mark.parametrize("name", NARROW)
def test_bytes_lie_anywhere(road: str, name: str) -> None:
    for offset in range(1, 16):
        array = at(offset, name)
        assert dlbridge.to_torch(array, policy="strict").data_ptr() == address(array)


@pytest.mark.parametrize("name", WIDE)
def test_the_size_of_an_element_is_enough(road: str, name: str) -> None:
    size = dtype_of(name).itemsize
    for offset in range(0, 64, size):
        array = at(offset, name)
        assert dlbridge.to_torch(array, policy="strict").data_ptr() == address(array)


@pytest.mark.parametrize("name", WIDE)
def test_the_field_of_a_packed_record_is_copied(road: str, name: str) -> None:
    for gap in range(1, dtype_of(name).itemsize):
        array = packed(name, gap)
        refused(lambda a=array: dlbridge.to_torch(a, policy="strict"), array.itemsize)
        tensor = dlbridge.to_torch(array)
        same_as(tensor, array)
        before = array.tobytes()
        tensor.zero_()
        assert array.tobytes() == before


def test_a_complex_number_counts_whole_though_numpy_calls_its_half_aligned(road: str) -> None:
    array = at(8, "c16")
    assert array.flags.aligned
    refused(lambda: dlbridge.to_torch(array, copy=False), 16)
    same_as(dlbridge.to_torch(array), array)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(memoryview, id="a buffer"),
        pytest.param(lambda a: a.view(np.matrix), id="np.matrix"),
        pytest.param(lambda a: Interface(a), id="an array interface"),
        pytest.param(lambda a: dlbridge.from_dlpack(a), id="a managed tensor"),
        pytest.param(lambda a: dlbridge.capsule(a), id="a capsule"),
    ],
)
def test_every_door_to_torch_sees_the_address(road: str, wrap: Callable[[Any], Any]) -> None:
    array = at(3, "f4", (2, 3))
    refused(lambda: dlbridge.to_torch(wrap(array), copy=False), 4)
    same_as(dlbridge.to_torch(wrap(array)), array)


class Interface:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


def test_a_cast_takes_what_lies_anywhere(road: str) -> None:
    array = at(1, "f4")
    tensor = dlbridge.to_torch(array, dtype="float64")
    assert tensor.tolist() == array.tolist()


def test_leaves_of_a_tree_are_copied_each_for_itself(road: str) -> None:
    tree = {"odd": at(2, "f4"), "even": at(4, "f4")}
    tensors = dlbridge.to_torch(tree)
    same_as(tensors["odd"], tree["odd"])
    assert tensors["even"].data_ptr() == address(tree["even"])


# --- to whoever reads any address, or nothing ---------------------------------------------------


@pytest.mark.parametrize("name", WIDE)
def test_our_own_tensors_and_numpy_view_it(name: str) -> None:
    for array in odd(name):
        for preset, answer in VIEW.items():
            assert outcome(dlbridge.explain(array, "dlbridge", policy=preset)) == answer
        managed = dlbridge.from_dlpack(array, copy=False)
        assert managed.data_ptr == address(array)
        for source in (
            managed,
            dlbridge.capsule(array, policy="strict"),
            dlbridge.capsule(array, max_version=None, policy="strict"),
        ):
            back = dlbridge.to_numpy(source, copy=False)
            assert address(back) == address(array) and back.tobytes() == array.tobytes()
            assert back.flags.aligned == array.flags.aligned
        copied = dlbridge.to_numpy(managed, policy="snapshot")
        assert is_private(copied) and copied.tobytes() == array.tobytes()


def odd_tensors(name: str) -> Iterator[torch.Tensor]:
    """Tensors that torch itself made at such addresses."""
    for array in odd(name):
        tensor = torch.frombuffer(array.view("u1"), dtype=getattr(torch, array.dtype.name))
        assert tensor.data_ptr() == address(array)
        yield tensor


@pytest.mark.parametrize("name", WIDE)
def test_torchs_own_tensors_stay_views_to_numpy(road: str, name: str) -> None:
    expected = at(0, name).tobytes()
    for tensor in odd_tensors(name):
        view = dlbridge.to_numpy(tensor, policy="zero_copy")
        assert address(view) == tensor.data_ptr() and view.tobytes() == expected
        assert dlbridge.from_dlpack(tensor).data_ptr == tensor.data_ptr()


@pytest.mark.parametrize("name", WIDE)
def test_torchs_own_tensors_stay_themselves_to_torch(road: str, name: str) -> None:
    expected = at(0, name).tobytes()
    for tensor in odd_tensors(name):
        for policy in ("strict", "host", "zero_copy"):
            assert dlbridge.to_torch(tensor, policy=policy) is tensor
        copy = dlbridge.to_torch(tensor, copy=True)
        assert copy.data_ptr() % 64 == 0 and torch_bytes(copy) == expected


# --- to libraries of the registry --------------------------------------------------------------


def library(**fields: Any) -> str:
    """A library that keeps what it is handed."""
    name = "library_of_addresses"
    dlbridge.register(
        dlbridge.Library(
            name=name,
            capabilities=dlbridge.Capabilities(**fields),
            take=lambda managed: managed,
            address=lambda result: result.data_ptr,
        )
    )
    return name


@pytest.mark.parametrize("name", WIDE)
def test_a_library_loads_by_type_where_it_says_nothing(name: str) -> None:
    target = library()
    for array in odd(name):
        for preset, answer in COPIED.items():
            assert outcome(dlbridge.explain(array, target, policy=preset)) == answer
        refused(lambda a=array: dlbridge.to(a, target, copy=False), array.itemsize)
        taken = dlbridge.to(array, target)
        assert taken.data_ptr % 64 == 0
        assert dlbridge.to_numpy(taken).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", WIDE)
def test_a_library_that_reads_any_address_gets_a_view(name: str) -> None:
    target = library(reads_unaligned=True)
    for array in odd(name):
        for preset, answer in VIEW.items():
            assert outcome(dlbridge.explain(array, target, policy=preset)) == answer
        assert dlbridge.to(array, target, policy="strict").data_ptr == address(array)


@pytest.mark.parametrize("reads_unaligned", [False, True])
@pytest.mark.parametrize("alignment", [1, 2, 8, 64])
def test_the_greater_of_both_needs_counts(alignment: int, reads_unaligned: bool) -> None:
    target = library(alignment=alignment, reads_unaligned=reads_unaligned)
    needed = max(alignment, 1 if reads_unaligned else 4)
    for offset in range(64):
        array = at(offset, "f4")
        plan = dlbridge.explain(array, target)
        assert outcome(plan) == ("view" if offset % needed == 0 else "copy")
        if not plan.view:
            assert f"no multiple of {needed} bytes" in plan.reasons[0]


@pytest.mark.parametrize("wrong", [0, -8, 3, 48, 2**40])
def test_an_alignment_is_a_power_of_two(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"alignment={wrong} is no power of two"):
        library(alignment=wrong)


def test_memoryviews_read_any_address_and_ctypes_hands_pointers_on() -> None:
    array = at(1, "f4")
    view = dlbridge.to(array, "memoryview", policy="zero_copy")
    assert view.tolist() == array.tolist()
    assert dlbridge.to_numpy(view).tobytes() == array.tobytes()
    assert dlbridge.to(array, "array").tolist() == array.tolist()
    refused(lambda: dlbridge.to(array, "ctypes", copy=False), 4)
    made = dlbridge.to(array, "ctypes")
    assert ctypes.addressof(made) % 4 == 0 and list(made) == array.tolist()


# --- to functions of C++ -------------------------------------------------------------------------


@pytest.fixture(params=["nanobind", "pybind11"])
def casters(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield importlib.import_module(f"dlbridge_{request.param}_casters")
    settle()


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_function_that_only_reads_gets_a_copy(casters: Any, road: str, offset: int) -> None:
    array = at(offset, "f4", (3, 4))
    tensor = torch.frombuffer(array.view("u1"), dtype=torch.float32).reshape(3, 4)
    for source in (array, tensor, dlbridge.from_dlpack(array), array[::-1, ::2]):
        assert casters.sum(source) == dlbridge.to_numpy(source).sum()
        with dlbridge.policy("strict"):
            refused(lambda s=source: casters.sum(s), 4)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_function_that_writes_is_refused(casters: Any, offset: int) -> None:
    # What it wrote to a copy would be lost.
    array = at(offset, "f4", (3, 4))
    before = array.tobytes()
    with pytest.raises(dlbridge.ConversionRefused, match="no multiple of 4 bytes"):
        casters.fill(array, 5)
    assert array.tobytes() == before


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_function_that_takes_any_tensor_gets_it_where_it_lies(casters: Any, offset: int) -> None:
    array = at(offset, "f4", (3, 4))
    kept = casters.same(array)
    assert kept.data_ptr == address(array)
    assert casters.sum(at(offset, "f4", (0, 4))) == 0
    casters.fill(at(offset, "f4", (0, 4)), 5)
