"""Memory that may still be written to, for a library that takes memory as constant: it computes
with whatever is in it by then. The policy's field `mutable` decides."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import PRESETS

import dlbridge
from dlbridge import Policy, libraries

NOTE = "stone takes memory as constant, and a later write would change what it computes"


def register(**fields: Any) -> None:
    dlbridge.register(
        dlbridge.Library(
            name="stone",
            object="stone.Array",
            capabilities=dlbridge.Capabilities(
                **({"takes_as_constant": True, "read_only": "honours", "writable": False} | fields)
            ),
            take=lambda managed: managed,
            address=lambda result: result.data_ptr,
        )
    )


@pytest.fixture(autouse=True)
def stone() -> None:
    register()


def values() -> np.ndarray:
    return np.arange(6.0)


def read_only() -> np.ndarray:
    array = values()
    array.flags.writeable = False
    return array


WRITABLE: dict[str, Callable[[], Any]] = {
    "an array": values,
    "a tensor": lambda: torch.arange(6.0, dtype=torch.float64),
    "a tensor in a graph": lambda: torch.arange(6.0, dtype=torch.float64, requires_grad=True),
    "a managed tensor": lambda: dlbridge.from_dlpack(values()),
    "a capsule": lambda: dlbridge.capsule(values()),
    "a buffer": lambda: memoryview(values()),
    "a strided array": lambda: np.arange(12.0)[::2],
    "an array that overlaps itself": lambda: np.lib.stride_tricks.as_strided(
        np.zeros(1), (6,), (0,)
    ),
}


@pytest.mark.parametrize("kind", WRITABLE)
def test_the_table_says_what_becomes_of_memory_that_may_change(road: str, kind: str) -> None:
    answers = dict(zip(PRESETS, ("refuse", "view", "view", "copy"), strict=True))
    for preset, answer in answers.items():
        plan = dlbridge.explain(WRITABLE[kind](), "stone", policy=preset)
        assert ("refuse" if plan.refused else "view" if plan.view else "copy") == answer
        assert (NOTE in plan.notes) == (answer == "view")
        if answer != "refuse":
            assert not any("constant" in reason for reason in plan.reasons)
            result = dlbridge.to(WRITABLE[kind](), "stone", policy=preset)
            expected = 0 if "overlaps" in kind else np.arange(6) * (2 if "strided" in kind else 1)
            assert np.array_equal(dlbridge.to_numpy(result), np.broadcast_to(expected, 6))
            continue
        assert any("constant" in reason for reason in plan.reasons)
        with pytest.raises(dlbridge.ConversionRefused, match="may still be written to") as caught:
            dlbridge.to(WRITABLE[kind](), "stone", policy=preset)
        assert caught.value.fix is not None and 'policy="host"' in caught.value.fix


def test_a_plain_view_has_no_reason_and_prints_its_note() -> None:
    plan = dlbridge.explain(values(), "stone")
    assert plan.steps == () and plan.reasons == () and plan.notes == (NOTE,)
    assert f"note: {NOTE}" in str(plan)


def test_the_note_is_true() -> None:
    array = values()
    taken = dlbridge.to(array, "stone")
    array[0] = 7
    assert dlbridge.to_numpy(taken)[0] == 7


@pytest.mark.parametrize("mutable", ["alias", "copy", "refuse"])
@pytest.mark.parametrize("wrap", [read_only, lambda: dlbridge.from_dlpack(read_only())])
def test_read_only_memory_is_taken_as_it_is(wrap: Callable[[], Any], mutable: str) -> None:
    plan = dlbridge.explain(wrap(), "stone", policy=Policy(mutable=mutable))
    assert plan.view and not plan.refused and plan.notes == ()


def test_read_only_memory_goes_by_its_own_row_where_the_library_does_not_know_it() -> None:
    register(read_only="unaware")
    plan = dlbridge.explain(read_only(), "stone")
    assert not plan.view and plan.notes == ()
    plan = dlbridge.explain(read_only(), "stone", policy="strict")
    assert plan.refused and not any("constant" in reason for reason in plan.reasons)


def test_copy_makes_private_memory_and_says_why() -> None:
    array = values()
    plan = dlbridge.explain(array, "stone", policy=Policy(mutable="copy"))
    assert plan.steps == ("repack",) and plan.bytes_copied == array.nbytes and plan.notes == ()
    assert any("a later write" in reason for reason in plan.reasons)
    taken = dlbridge.to(array, "stone", policy=Policy(mutable="copy"))
    array[0] = 7
    assert dlbridge.to_numpy(taken).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(dlbridge.ConversionRefused, match="later write") as caught:
        dlbridge.to(array, "stone", policy=Policy(mutable="copy"), copy=False)
    assert caught.value.fix == "the call without copy=False to copy"


def test_refuse_refuses_also_what_would_be_copied() -> None:
    for source in (values(), values().astype(">f8")):
        for copy in (None, True):
            with pytest.raises(dlbridge.ConversionRefused, match="later write"):
                dlbridge.to(source, "stone", policy=Policy(mutable="refuse"), copy=copy)


def test_a_copy_for_another_reason_has_no_note() -> None:
    plan = dlbridge.explain(values().astype(">f8"), "stone")
    assert not plan.view and plan.notes == ()


def test_its_own_objects_stay_themselves_without_a_note() -> None:
    class Array:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

    Array.__module__ = "stone.core"
    dlbridge.register(
        dlbridge.Library(
            name="stone",
            read=lambda x: x.array,
            capabilities=dlbridge.Capabilities(takes_as_constant=True),
            take=lambda managed: Array(dlbridge.to_numpy(managed)),
        )
    )
    own = Array(values())
    assert dlbridge.to(own, "stone", policy="strict") is own
    assert dlbridge.explain(own, "stone", policy="strict").notes == ()


@pytest.mark.parametrize("mutable", ["alias", "copy", "refuse"])
def test_other_libraries_do_not_ask(road: str, mutable: str) -> None:
    register(takes_as_constant=False)
    policy = Policy(mutable=mutable)
    for target in ("numpy", "torch", "dlbridge", "memoryview", "stone"):
        for source in (values(), torch.arange(6.0)):
            plan = dlbridge.explain(source, target, policy=policy)
            assert not plan.refused and (plan.view or plan.bytes_copied == 0)
            assert plan.notes == ()


def test_a_library_whose_objects_can_be_written_to_may_take_memory_as_constant() -> None:
    register(writable=True)
    plan = dlbridge.explain(values(), "stone")
    assert plan.view and plan.writable and plan.notes == (NOTE,)


@pytest.mark.keeps_sources  # JAX, imported here, keeps constants
def test_the_libraries_whose_arrays_never_change_say_so() -> None:
    for row in libraries.known():
        absent = callable(row.capabilities) and find_spec(row.name) is None
        if row.capabilities is None or absent:
            continue  # a compiled bridge, or only the library itself can tell
        constant = libraries.capabilities_of(row).takes_as_constant
        assert constant == (row.name in ("jax", "tensorflow", "polars", "stone"))
