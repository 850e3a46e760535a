"""The 33 rules of DLPack, asked of all our producers and consumers, and of the exchange table."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from typing import Any

import dlbridge_nanobind_casters
import dlbridge_pybind11_casters
import numpy as np
import pytest
import torch
from dlb_support import settle
from failing_calls import Interface, registered, tabled

import dlbridge
from dlbridge import testing
from dlbridge.testing import Violation

F4 = np.arange(6, dtype="f4")


def float4() -> torch.Tensor:
    return torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


# What a ManagedTensor can be of; the rules do not depend on it.
SOURCES: dict[str, Callable[[], Any]] = {
    "an array": F4.copy,
    "part of an array": lambda: np.arange(24, dtype="f4").reshape(2, 12)[1, ::2],
    "a copy": lambda: dlbridge.from_dlpack(F4, copy=True),
    "a tensor": lambda: torch.arange(6.0),
    "a tensor in a graph": lambda: torch.arange(6.0).requires_grad_(),
    "a hand-made tensor": testing.HandMade,
    "a hand-made legacy tensor": lambda: testing.HandMade(versioned=False, answers=False),
    "a tensor with an offset": lambda: testing.HandMade(lead=16),
    "a tensor without strides": lambda: testing.HandMade(strides=None),
    "a raw capsule": lambda: testing.HandMade().capsule(),
    "a ManagedTensor's capsule": lambda: dlbridge.capsule(F4.copy()),
    "a table": tabled,
    "a buffer": lambda: array.array("f", range(6)),
    "an array interface": Interface,
}


def producer_of(make: Callable[[], Any]) -> testing.Producer:
    return testing.Producer(
        make=lambda: dlbridge.from_dlpack(make()),
        address=lambda x: x.data_ptr,
        empty=lambda: dlbridge.from_dlpack(np.zeros((0, 3), "f4")),
        float4=lambda: dlbridge.from_dlpack(float4()),
        live=dlbridge._core.live_managed_tensors,
    )


@pytest.mark.parametrize("rule", testing.rules("producer"), ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_a_managed_tensor_of_anything_is_a_producer(source: str, rule: testing.Rule) -> None:
    rule.check(producer_of(SOURCES[source]))


@pytest.mark.parametrize("rule", testing.rules("producer"), ids=str)
@pytest.mark.parametrize("source", ["a tensor", "a tensor in a graph"])
def test_a_managed_tensor_of_a_tensor_is_one_on_both_roads(
    source: str, rule: testing.Rule, road: str
) -> None:
    rule.check(producer_of(SOURCES[source]))


CONSUMERS: dict[str, Callable[[Any], Any]] = {
    "from_dlpack": dlbridge.from_dlpack,
    "to_numpy": dlbridge.to_numpy,
    "to_torch": dlbridge.to_torch,
    "to numpy": lambda x: dlbridge.to(x, "numpy"),
    "to torch": lambda x: dlbridge.to(x, torch),
    "to a registered library": lambda x: dlbridge.to(x, registered()),
    "a tree to arrays": lambda x: dlbridge.to_numpy([x])[0],
    "a tree to tensors": lambda x: dlbridge.to_torch({"x": x})["x"],
    "a capsule": lambda x: dlbridge.from_dlpack(dlbridge.capsule(x)),
    "in a traced block": lambda x: traced(x),
}


def traced(x: Any) -> Any:
    with dlbridge.trace():
        return dlbridge.to_numpy(x)


def consumer(take: Callable[[Any], Any]) -> testing.Consumer:
    return testing.Consumer(
        take=take,
        values=lambda x: dlbridge.to_numpy(getattr(x, "cells", x)).tolist(),
        write=lambda x: x.__setitem__(..., 9) if hasattr(x, "__setitem__") else None,
    )


@pytest.mark.parametrize("rule", testing.rules("consumer"), ids=str)
@pytest.mark.parametrize("name", CONSUMERS)
def test_every_way_in_is_a_consumer(name: str, rule: testing.Rule, road: str) -> None:
    if "torch" not in name and "tensors" not in name and road == "portable":
        pytest.skip("it does not depend on the road")
    rule.check(consumer(CONSUMERS[name]))


@pytest.mark.parametrize("casters", [dlbridge_nanobind_casters, dlbridge_pybind11_casters])
@pytest.mark.parametrize("versioned", [True, False])
def test_a_caster_takes_a_tensor_once(casters: Any, versioned: bool) -> None:
    made = testing.HandMade(versioned=versioned, answers=False)
    assert casters.rows(made) == 6
    made.forget_capsules()
    assert made.deleted == made.made == 1


@pytest.mark.parametrize("rule", testing.rules("exchange table"), ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_the_table_keeps_its_rules_for_anything(source: str, rule: testing.Rule) -> None:
    make = SOURCES[source]
    rule.check(
        testing.ExchangeTable(
            type=dlbridge.ManagedTensor, make=lambda: dlbridge.from_dlpack(make())
        )
    )


@pytest.mark.parametrize("source", ["an array", "a tensor", "a buffer", "an array interface"])
def test_every_export_gives_its_reference_of_the_source_back(source: str, road: str) -> None:
    x = SOURCES[source]()
    references = sys.getrefcount(x)
    for take in (
        dlbridge.from_dlpack,
        dlbridge.to_numpy,
        dlbridge.to_torch,
        dlbridge.capsule,
        lambda x: dlbridge.to_numpy(x, copy=True),
        lambda x: dlbridge.explain(x, "torch"),
        lambda x: dlbridge.from_dlpack(x).__dlpack__(),
        lambda x: memoryview(dlbridge.from_dlpack(x)),
    ):
        result = take(x)
        del result
        if take is dlbridge.to_torch:  # torch lets go of memory without the GIL
            settle()
        assert sys.getrefcount(x) == references


def test_a_refusal_gives_its_reference_of_the_source_back(road: str) -> None:
    frozen = np.arange(6.0)
    frozen.flags.writeable = False
    for x in (frozen, torch.arange(6.0).to_sparse(), torch.arange(6.0).requires_grad_()):
        references = sys.getrefcount(x)
        for policy in ("strict", "zero_copy"):
            for take in (dlbridge.to_numpy, dlbridge.to_torch, dlbridge.capsule):
                try:
                    take(x, policy=policy)
                except dlbridge.ConversionRefused as refused:
                    assert refused.reasons
                assert sys.getrefcount(x) == references


def test_the_kit_sees_what_breaks_a_rule() -> None:
    rule = testing.rule_named("empty-is-null")
    with pytest.raises(Violation, match="address"):
        rule.check(testing.Producer(make=F4.copy, empty=lambda: np.zeros((0, 3), "f4")))
