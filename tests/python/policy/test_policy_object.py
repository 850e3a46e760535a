"""Policy itself: its fields, its presets, and what every field's other values do."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import PRESETS, address, is_private
from torch_sources import ML_DTYPES, SOURCES, bit_patterns

import dlbridge

# test_readme.py holds this table against the manual's.
FIELDS: dict[str, tuple[str, ...]] = dlbridge._core.policy_fields()
Policy = dlbridge.Policy


def test_the_presets_are_the_policies_of_the_design() -> None:
    assert dlbridge.host == Policy()
    assert dlbridge.zero_copy == dlbridge.host.replace(copy=False)
    assert dlbridge.snapshot == dlbridge.host.replace(copy=True)
    refusals = dict.fromkeys(FIELDS, "refuse") | {"overlap": "readonly"}
    assert dlbridge.strict == Policy(**refusals, copy=False)
    assert len({dlbridge.strict, dlbridge.host, dlbridge.zero_copy, dlbridge.snapshot}) == 4


@pytest.mark.parametrize("field", FIELDS)
def test_the_first_value_of_a_field_is_its_default(field: str) -> None:
    assert getattr(Policy(), field) == FIELDS[field][0]
    for value in FIELDS[field]:
        assert getattr(Policy(**{field: value}), field) == value
        assert getattr(Policy().replace(**{field: value}), field) == value


def test_copy_is_none_by_default_and_keeps_its_value() -> None:
    assert Policy().copy is None
    assert Policy(copy=False).copy is False and Policy(copy=True).copy is True


@pytest.mark.parametrize("wrong", ["nonsense", "", "Refuse", 3, None, True])
@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_value_is_a_value_error_that_lists_the_right_ones(field: str, wrong: Any) -> None:
    for make in (Policy, Policy().replace):
        with pytest.raises(ValueError) as caught:
            make(**{field: wrong})
        text = str(caught.value)
        assert field in text
        for value in FIELDS[field]:
            assert value in text


@pytest.mark.parametrize("wrong", ["maybe", 2, "True", 0.5, []])
def test_a_wrong_copy_lists_its_three_values(wrong: Any) -> None:
    with pytest.raises(ValueError) as caught:
        Policy(copy=wrong)
    for value in ("copy", "None", "False", "True"):
        assert value in str(caught.value)


def test_an_unknown_field_is_a_type_error() -> None:
    for make in (Policy, Policy().replace):
        with pytest.raises(TypeError, match="colour"):
            make(colour="red")


def test_fields_are_given_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        Policy("detach")


@pytest.mark.parametrize("field", [*FIELDS, "copy", "unheard_of"])
def test_a_policy_is_frozen(field: str) -> None:
    policy = Policy()
    with pytest.raises(AttributeError):
        setattr(policy, field, "refuse")
    with pytest.raises(AttributeError):
        delattr(policy, field)
    assert policy == Policy()


def test_equal_policies_have_equal_hashes_and_others_differ() -> None:
    assert Policy(grad="refuse") == Policy().replace(grad="refuse")
    assert hash(Policy(grad="refuse")) == hash(Policy().replace(grad="refuse"))
    for field, values in FIELDS.items():
        assert Policy(**{field: values[1]}) != Policy()
    assert Policy(copy=False) != Policy() != Policy(copy=True)
    assert Policy() != "host" and (Policy() == 5) is False


def test_replace_makes_a_new_policy_and_leaves_the_old_one() -> None:
    policy = Policy()
    other = policy.replace(grad="refuse", copy=False)
    assert (other.grad, other.copy) == ("refuse", False)
    assert (policy.grad, policy.copy) == ("detach", None)


def test_the_text_of_a_policy_shows_its_fields() -> None:
    text = repr(Policy(grad="refuse", copy=False))
    for part in ("grad", "refuse", "copy", "False"):
        assert part in text


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_by_name_and_by_object(road: str, name: str) -> None:
    leaf = torch.ones(3, requires_grad=True)
    by_name = dlbridge.explain(leaf, "numpy", policy=name)
    by_object = dlbridge.explain(leaf, "numpy", policy=getattr(dlbridge, name))
    assert str(by_name) == str(by_object)


@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "capsule", "explain", "to"])
def test_an_unknown_preset_lists_the_names(road: str, door: str) -> None:
    arguments = ("numpy",) if door in ("explain", "to") else ()
    with pytest.raises(ValueError) as caught:
        getattr(dlbridge, door)(np.zeros(3), *arguments, policy="lenient")
    for name in PRESETS:
        assert name in str(caught.value)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


@pytest.mark.parametrize("wrong", [3, object(), {"copy": True}])
def test_a_policy_of_another_type_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        dlbridge.to_numpy(np.zeros(3), policy=wrong)


# --- what the other values do -----------------------------------------------------------------


@pytest.mark.parametrize(
    "field, source",
    [
        ("grad", "graph: leaf"),
        ("grad", "forward dual"),
        ("bits", "conj"),
        ("bits", "neg"),
        ("bits", "zero tensor"),
        ("dtype", "bfloat16"),
        ("overlap", "expanded"),
    ],
)
def test_refuse_in_one_field_refuses_that_row_alone(road: str, field: str, source: str) -> None:
    policy = Policy(**{field: "refuse"})
    with SOURCES[source]() as (tensor, _), pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(tensor, policy=policy)
    with SOURCES["plain"]() as (tensor, expected):
        assert np.array_equal(dlbridge.to_numpy(tensor, policy=policy), expected)


def test_refuse_for_read_only_refuses_towards_torch_alone(road: str) -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    policy = Policy(readonly="refuse")
    with pytest.raises(dlbridge.ConversionRefused, match=r"read-only|readonly"):
        dlbridge.to_torch(array, policy=policy)
    assert dlbridge.from_dlpack(array).readonly
    assert dlbridge.to_numpy(array, policy=policy) is array


def test_detach_writable_gives_a_writable_view_and_leaves_the_version(road: str) -> None:
    leaf = torch.ones(3, requires_grad=True)
    before = leaf._version
    plan = dlbridge.explain(leaf, "numpy", policy=Policy(grad="detach_writable"))
    view = dlbridge.to_numpy(leaf, policy=Policy(grad="detach_writable"))
    assert view.flags.writeable and plan.writable and plan.view
    view[0] = 5
    assert leaf[0].item() == 5
    assert leaf._version == before and leaf.requires_grad


def wide_values(array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # NaNs of every pattern
        return array.astype("f4").astype("f8")


@pytest.mark.parametrize("name", ML_DTYPES)
def test_upcast_widens_without_losing_a_value(road: str, name: str) -> None:
    tensor, bits = bit_patterns(name)
    result = dlbridge.to_numpy(tensor, policy=Policy(dtype="upcast"))
    assert result.dtype in (np.float16, np.float32, np.float64)
    assert np.array_equal(wide_values(result), wide_values(bits), equal_nan=True)
    assert is_private(result)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(tensor, policy=Policy(dtype="upcast", copy=False))


def test_upcast_of_bfloat16_is_float32(road: str) -> None:
    result = dlbridge.to_numpy(torch.ones(3).bfloat16(), policy=Policy(dtype="upcast"))
    assert result.dtype == np.float32 and result.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", [*ML_DTYPES, "complex32"])
def test_bits_gives_an_unsigned_view_of_the_same_width(road: str, name: str) -> None:
    if name == "complex32":
        tensor = torch.ones(3).to(torch.complex32)
        expected = np.array([1, 0, 1, 0, 1, 0], "f2").view("u4")
    else:
        tensor, array = bit_patterns(name)
        expected = array.view(f"u{array.itemsize}")
    result = dlbridge.to_numpy(tensor, policy=Policy(dtype="bits"))
    assert result.dtype == expected.dtype and np.array_equal(result, expected)
    assert address(result) == tensor.data_ptr() and result.flags.writeable


def test_the_dtype_field_leaves_dtypes_alone_that_the_target_has(road: str) -> None:
    for value in FIELDS["dtype"]:
        result = dlbridge.to_numpy(torch.ones(3).half(), policy=Policy(dtype=value))
        assert result.dtype == np.float16


@pytest.mark.parametrize("name", ["float8_e3m4", "float8_e4m3"])
def test_bits_and_upcast_carry_to_torch_what_it_lacks(road: str, name: str) -> None:
    array = np.arange(256, dtype="u1").view(getattr(ml_dtypes, name))
    bits = dlbridge.to_torch(array, policy=Policy(dtype="bits"))
    assert bits.dtype == torch.uint8 and bits.data_ptr() == address(array)
    wide = dlbridge.to_torch(array, policy=Policy(dtype="upcast"))
    assert wide.is_floating_point()
    assert np.array_equal(wide.double().numpy(), wide_values(array), equal_nan=True)


def test_overlap_copy_gives_private_memory(road: str) -> None:
    with SOURCES["expanded"]() as (tensor, expected):
        result = dlbridge.to_numpy(tensor, policy=Policy(overlap="copy"))
        assert is_private(result) and np.array_equal(result, expected)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(tensor, policy=Policy(overlap="copy", copy=False))


def test_readonly_alias_shares_read_only_memory_with_torch(road: str) -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = dlbridge.to_torch(array, policy=Policy(readonly="alias"))
    assert tensor.data_ptr() == address(array)


def test_copy_true_does_not_excuse_a_refusal_in_another_field(road: str) -> None:
    policy = Policy(grad="refuse", copy=True)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(torch.ones(3, requires_grad=True), policy=policy)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(torch.ones(3, requires_grad=True), policy="strict", copy=True)
    assert is_private(dlbridge.to_numpy(torch.ones(3), policy="strict", copy=True))
