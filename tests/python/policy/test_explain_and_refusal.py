"""explain and ConversionRefused: what they say is true and readable, and the fix works."""

from __future__ import annotations

import pickle
import re
from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
import torch
from dlb_support import PRESETS, make_f32, producer_f32, settle
from torch_sources import NEWER, SOURCES

import dlbridge

# --- the Plan ---------------------------------------------------------------------------------

STEPS = {
    "graph: leaf": "detach",
    "conj": "conj",
    "neg": "neg",
    "zero tensor": "materialise",
    "expanded": "read-only",
}


def test_a_plain_view_has_an_empty_plan(road: str) -> None:
    plan = dlbridge.explain(torch.ones(3), "numpy")
    assert plan.steps == () and plan.reasons == ()
    assert (plan.view, plan.writable, plan.refused, plan.bytes_copied) == (True, True, False, 0)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_named_with_its_reason(road: str, name: str) -> None:
    with SOURCES[name]() as (tensor, _):
        plan = dlbridge.explain(tensor, "numpy")
    assert type(plan.steps) is tuple and type(plan.reasons) is tuple
    assert all(type(text) is str for text in (*plan.steps, *plan.reasons))
    assert any(STEPS[name] in step for step in plan.steps)
    assert plan.reasons


def test_the_steps_of_numpy_sources_are_named(road: str) -> None:
    swapped = np.arange(3, dtype=np.dtype("f4").newbyteorder())
    assert any("swap" in step for step in dlbridge.explain(swapped, "torch").steps)
    plan = dlbridge.explain(np.arange(3.0)[::-1], "torch")
    assert any("repack" in step for step in plan.steps)
    assert any("stride" in reason for reason in plan.reasons)
    cast = dlbridge.explain(np.arange(3.0), "torch", dtype=torch.float32)
    assert any("cast" in step for step in cast.steps)


@pytest.mark.parametrize(
    "field", ["steps", "reasons", "view", "bytes_copied", "writable", "refused"]
)
def test_a_plan_cannot_be_changed(field: str) -> None:
    plan = dlbridge.explain(np.zeros(3), "numpy")
    with pytest.raises(AttributeError):
        setattr(plan, field, None)


@pytest.mark.parametrize("field, kind", [("view", bool), ("writable", bool), ("refused", bool)])
def test_the_answers_of_a_plan_have_plain_types(field: str, kind: type) -> None:
    plan = dlbridge.explain(np.zeros(3), "torch", copy=True)
    assert type(getattr(plan, field)) is kind
    assert type(plan.bytes_copied) is int and plan.bytes_copied == 24


def test_a_view_prints_as_one(road: str) -> None:
    text = str(dlbridge.explain(torch.ones(3), "numpy"))
    assert "view" in text and "writable" in text
    assert " object at 0x" not in text
    leaf = str(dlbridge.explain(torch.ones(3, requires_grad=True), "numpy"))
    assert "view" in leaf and "read-only" in leaf and "detach" in leaf


def test_a_copy_prints_what_is_copied_and_why(road: str) -> None:
    plan = dlbridge.explain(torch.ones(3, dtype=torch.complex64).conj(), "numpy")
    text = str(plan)
    assert "cop" in text and "24" in text  # bytes
    for reason in plan.reasons:
        assert reason in text


def test_a_refusal_prints_what_to_write_instead(road: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_numpy(torch.ones(3, requires_grad=True), policy="strict")
    plan = dlbridge.explain(torch.ones(3, requires_grad=True), "numpy", policy="strict")
    assert "refuse" in str(plan).lower()
    for text in (str(plan), str(caught.value.plan)):
        assert caught.value.fix in text
        for reason in caught.value.reasons:
            assert reason in text
    assert caught.value.fix in str(caught.value) and "requires_grad" in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["plain", "graph: leaf", "conj", "freed storage", "offset slice"])
def test_explain_changes_nothing_at_the_source(road: str, name: str, preset: str) -> None:
    with SOURCES[name]() as (tensor, _):
        storage = tensor.untyped_storage()
        before = (tensor._version, tensor.requires_grad, storage.data_ptr(), storage.resizable())
        dlbridge.explain(tensor, "numpy", policy=preset)
        after = (tensor._version, tensor.requires_grad, storage.data_ptr(), storage.resizable())
        assert before == after


def test_explain_leaves_no_mark_on_a_resizable_tensor(road: str) -> None:
    tensor = torch.arange(4.0)
    dlbridge.explain(tensor, "numpy")
    tensor.resize_(1000)
    assert tensor.numel() == 1000


@pytest.mark.parametrize("versioned", [True, False])
def test_explain_does_not_consume_a_raw_capsule(versioned: bool) -> None:
    capsule, token = make_f32(versioned=versioned)
    for _ in range(3):
        plan = dlbridge.explain(capsule, "numpy")
        assert plan.view and plan.writable == versioned
    assert probe.name(capsule) == ("dltensor_versioned" if versioned else "dltensor")
    settle()
    assert probe.deletes(token) == 0
    assert dlbridge.to_numpy(capsule).tolist() == [0, 1, 2, 3, 4, 5]


def test_explain_releases_what_a_producer_exported_for_it() -> None:
    producer = producer_f32()
    dlbridge.explain(producer, "torch")
    settle()
    assert probe.deletes(producer.token) == probe.exports(producer.token)


# --- the refusal ------------------------------------------------------------------------------


def refusal(
    source: Any, door: Any = dlbridge.to_numpy, **keywords: Any
) -> dlbridge.ConversionRefused:
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        door(source, **keywords)
    return caught.value


def test_a_refusal_is_a_buffer_error_and_a_value_error(road: str) -> None:
    assert issubclass(dlbridge.ConversionRefused, BufferError)
    assert issubclass(dlbridge.ConversionRefused, ValueError)
    error = refusal(torch.ones(3, requires_grad=True), policy="strict")
    assert type(error) is dlbridge.ConversionRefused
    assert type(error.reasons) is tuple and all(type(r) is str for r in error.reasons)
    assert type(error.plan) is type(dlbridge.explain(np.zeros(1), "numpy"))
    assert error.plan.refused and error.plan.reasons == error.reasons
    assert not error.plan.view and error.plan.bytes_copied == 0


def test_a_refusal_is_made_of_a_message_alone_as_well() -> None:
    error = dlbridge.ConversionRefused("there are no rows")
    assert str(error) == "there are no rows" and error.reasons == ("there are no rows",)
    assert error.fix is None and error.plan.refused and not error.plan.view
    error = dlbridge.ConversionRefused("no", reasons=["it is empty"], fix="x.filled()")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (str(each), each.reasons, each.fix) == ("no", ("it is empty",), "x.filled()")
        assert each.plan.reasons == each.reasons and each.plan.fix == each.fix


def test_a_refusal_of_a_rows_own_is_explained() -> None:
    def read(x: Any) -> Any:
        raise dlbridge.ConversionRefused("it has no rows")

    class Thing:
        pass

    Thing.__module__ = "library_that_refuses"
    dlbridge.register(dlbridge.Library(name="library_that_refuses", read=read))
    assert refusal(Thing()).reasons == ("it has no rows",)
    plan = dlbridge.explain(Thing(), "numpy")
    assert plan.refused and plan.reasons == ("it has no rows",)


def test_every_reason_is_given_and_not_only_the_first(road: str) -> None:
    tensor = torch.ones(3, dtype=torch.complex64, requires_grad=True).conj()
    error = refusal(tensor, policy="strict")
    assert len(error.reasons) >= 2
    text = " ".join(error.reasons)
    assert "grad" in text and "conj" in text
    array = np.arange(6.0)[::-1]
    array.flags.writeable = False
    text = " ".join(refusal(array, dlbridge.to_torch, policy="strict").reasons)
    assert re.search("read-?only", text) and "stride" in text


WORDS = {
    "graph: leaf": "requires_grad",
    "conj": "conj",
    "neg": "neg",
    "zero tensor": "zero",
    "sparse coo": "sparse",
    "mkldnn": "mkldnn",
    "quantised": "quanti[sz]ed",
    "nested strided": "nested",
    "nested jagged": "nested|jagged",
    "meta": "meta",
    "fake": "that is a FakeTensor",
    "functionalised": "functional",
    "uninitialised": "not initialised",
    "wrapper subclass": r"subclass \(\w+\) as NumPy \(its values are in other tensors\)$",
    "subclass with __torch_dispatch__": "__torch_dispatch__",
    "freed storage": "storage|NULL|freed",
    "vmap wrapper": "vmap|functorch|batch|storage",
    "grad wrapper": "functorch|grad|storage",
    "forward dual": "forward|tangent|dual",
    "bfloat16": "bfloat16",
    "int4": "int4",
    "complex32": "complex32",
    "65 dims": r"of 65 dimensions as NumPy \(NumPy takes at most \d+\)$",
}


@pytest.mark.parametrize("name", [name for name in WORDS if name not in NEWER])
def test_the_text_says_what_was_met(road: str, name: str) -> None:
    with SOURCES[name]() as (tensor, _):
        error = refusal(tensor, policy="strict")
    assert re.search(WORDS[name], str(error)), str(error)
    assert len(str(error)) < 1500 and "frame #" not in str(error)  # no C++ stacks


# --- afterwards (what a fix says is followed in test_every_fix.py) ---------------------------


def test_a_refusal_can_be_printed_later(road: str) -> None:
    error = refusal(torch.ones(3, requires_grad=True), policy="strict")
    settle()
    assert error.fix in str(error) and error.plan.refused and repr(error)


def test_a_refusal_holds_on_to_no_memory() -> None:
    capsule, token = make_f32(flags=1)
    error = refusal(capsule, dlbridge.to_torch, policy="strict")
    error.__traceback__ = None
    del capsule
    settle()
    assert probe.deletes(token) == 1
    assert error.plan.refused
