"""The arguments of a call: copy=, dtype=, device=, the target, and who comes back unchanged."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import dlbridge_probe as probe
import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import READ_ONLY, address, is_private, producer_f32

import dlbridge
from dlbridge._torch import TAKES_VERSIONED

# --- identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["strict", "host", "zero_copy"])
def test_an_object_of_the_targets_library_comes_back_itself(road: str, preset: str) -> None:
    read_only = np.arange(3.0)
    read_only.flags.writeable = False
    for array in (np.arange(3.0), read_only, np.arange(6.0)[::-2], np.array(2)):
        assert dlbridge.to_numpy(array, policy=preset) is array
        assert dlbridge.to(array, "numpy", policy=preset) is array
        assert dlbridge.explain(array, "numpy", policy=preset).steps == ()
    for tensor in (torch.ones(3), torch.ones(3, 2).t(), torch.ones(3).bfloat16()):
        assert dlbridge.to_torch(tensor, policy=preset) is tensor
        assert dlbridge.to(tensor, "torch", policy=preset) is tensor


@pytest.mark.parametrize("preset", ["strict", "host", "zero_copy"])
def test_a_tensor_on_its_way_to_torch_keeps_its_graph(road: str, preset: str) -> None:
    # Nothing is detached, so no field of the policy is asked.
    weight = torch.nn.Parameter(torch.ones(3))
    out = weight * 2
    assert dlbridge.to_torch(weight, policy=preset) is weight
    assert dlbridge.to_torch(out, policy=preset) is out
    out.sum().backward()
    assert weight.grad.tolist() == [2, 2, 2]


def test_no_change_asked_for_means_the_same_object(road: str) -> None:
    array, tensor = np.arange(3.0), torch.ones(3)
    assert dlbridge.to_numpy(array, dtype=np.float64) is array
    assert dlbridge.to_numpy(array, copy=False) is array
    assert dlbridge.to_torch(tensor, dtype=torch.float32, device="cpu", copy=False) is tensor


@pytest.mark.parametrize("dtype", ["U2", "S2", "O", "M8[D]", "m8[s]", "i4,f8", ">i4", "g"])
def test_an_array_of_any_dtype_stays_itself(dtype: str) -> None:
    array = np.zeros(3, dtype)
    assert dlbridge.to_numpy(array) is array
    assert dlbridge.to(array, "numpy", policy="strict") is array
    assert not dlbridge.explain(array, "numpy").refused


def test_copy_true_copies_even_within_a_library(road: str) -> None:
    array = np.arange(6.0)[::2]
    copied = dlbridge.to_numpy(array, copy=True)
    assert copied is not array and is_private(copied) and copied.tolist() == [0, 2, 4]
    assert not np.shares_memory(array, copied)
    tensor = torch.arange(6.0)[::2]
    clone = dlbridge.to_torch(tensor, copy=True)
    assert clone.data_ptr() != tensor.data_ptr() and clone.tolist() == [0, 2, 4]
    assert clone.is_contiguous() and clone.data_ptr() % 64 == 0


# --- copy= ------------------------------------------------------------------------------------


def test_copy_of_the_call_stands_over_the_policy(road: str) -> None:
    tensor = torch.arange(3.0)
    view = dlbridge.to_numpy(tensor, policy="snapshot", copy=False)
    assert address(view) == tensor.data_ptr()
    copied = dlbridge.to_numpy(tensor, policy="zero_copy", copy=True)
    assert is_private(copied) and address(copied) != tensor.data_ptr()
    # Left out, the policy's own word stands.
    assert address(dlbridge.to_numpy(tensor, policy="snapshot")) != tensor.data_ptr()
    conj = torch.tensor([1 + 2j]).conj()
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(conj, copy=False)
    assert dlbridge.to_numpy(conj, policy="zero_copy", copy=True).tolist() == [1 - 2j]


@pytest.mark.parametrize("wrong", ["maybe", 2, 0.5, []])
@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_a_wrong_copy_argument_is_told(road: str, door: str, wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="copy"):
        getattr(dlbridge, door)(np.zeros(3), copy=wrong)


# --- dtype= -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, "float32", np.dtype("f4")])
def test_to_numpy_casts_when_asked(road: str, dtype: Any) -> None:
    tensor = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).t()
    result = dlbridge.to_numpy(tensor, dtype=dtype)
    assert result.dtype == np.float32
    assert np.array_equal(result, tensor.numpy()) and is_private(result)


@pytest.mark.parametrize("dtype", [torch.float32, "float32"])
def test_to_torch_casts_when_asked(road: str, dtype: Any) -> None:
    array = np.arange(6.0).reshape(2, 3)[::-1]
    result = dlbridge.to_torch(array, dtype=dtype)
    assert result.dtype == torch.float32 and result.tolist() == array.tolist()


CASTS = [
    ("f8", "f4"),
    ("f4", "f8"),
    ("i8", "f4"),
    ("i4", "i8"),
    ("?", "u1"),
    ("f4", "c8"),
    ("i2", "?"),
]


@pytest.mark.parametrize("source, target", CASTS)
def test_a_cast_has_numpys_values(road: str, source: str, target: str) -> None:
    array = (np.arange(24) - 5).astype(source).reshape(4, 6)[::2, ::-1]
    expected = array.astype(target)
    assert np.array_equal(dlbridge.to_numpy(array, dtype=target), expected)
    tensor = torch.from_numpy(array.copy())
    result = dlbridge.to_numpy(tensor, dtype=target)
    assert result.dtype == expected.dtype and np.array_equal(result, expected)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_casts_to_and_from_ml_dtypes_round_to_nearest_even(road: str, name: str) -> None:
    values = np.linspace(-4, 4, 1001, dtype="f4")
    expected = values.astype(getattr(ml_dtypes, name))
    result = dlbridge.to_numpy(torch.from_numpy(values), dtype=expected.dtype)
    assert result.dtype == expected.dtype and result.tobytes() == expected.tobytes()
    there = dlbridge.to_torch(values, dtype=getattr(torch, name))
    assert there.view(torch.uint8).numpy().tobytes() == expected.tobytes()
    back = dlbridge.to_numpy(there, dtype="float32")
    assert np.array_equal(back, expected.astype("f4"))


def test_dtype_of_the_call_stands_over_the_policys_field(road: str) -> None:
    tensor = torch.ones(3).bfloat16()
    result = dlbridge.to_numpy(tensor, policy=dlbridge.Policy(dtype="refuse"), dtype=np.float32)
    assert result.dtype == np.float32 and result.tolist() == [1, 1, 1]


def test_a_cast_is_a_copy_and_copy_false_refuses_it(road: str) -> None:
    for policy in ("zero_copy", "strict"):
        with pytest.raises(dlbridge.ConversionRefused, match=r"cast|dtype|copy"):
            dlbridge.to_numpy(torch.ones(3), dtype="float64", policy=policy)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(np.ones(3), dtype=torch.float32, copy=False)
    plan = dlbridge.explain(torch.ones(3), "numpy", dtype="float64")
    assert not plan.view and any("cast" in step for step in plan.steps)
    assert plan.bytes_copied == 24


def test_a_cast_that_drops_the_imaginary_part_is_refused(road: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(torch.ones(3, dtype=torch.complex64), dtype="float32")


@pytest.mark.parametrize("wrong", ["float99", "", 5, object(), [1]])
@pytest.mark.parametrize("door", ["to_numpy", "to_torch"])
def test_a_dtype_that_is_none_is_a_bad_argument(road: str, door: str, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        getattr(dlbridge, door)(np.zeros(3), dtype=wrong)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


class Said:
    """A dtype or a device of a library that publishes it by DLPack's numbers."""

    def __init__(self, **methods: Any) -> None:
        for name, value in methods.items():
            setattr(self, name, lambda value=value: value)


def test_dtypes_and_devices_may_speak_for_themselves(road: str) -> None:
    half = Said(__dlpack_data_type__=(2, 16, 1))
    assert dlbridge.to_numpy(np.arange(3.0), dtype=half).dtype == np.float16
    assert dlbridge.to_torch(np.arange(3.0), dtype=half).dtype == torch.float16
    here = Said(__dlpack_device__=(1, 0))
    array = np.arange(3.0)
    assert dlbridge.to_torch(array, device=here).data_ptr() == address(array)
    with pytest.raises(ValueError, match="dtype="):
        dlbridge.to_numpy(array, dtype=Said(__dlpack_data_type__=(2, 0, 1)))
    with pytest.raises(ValueError, match="device="):
        dlbridge.to_torch(array, device=Said(__dlpack_device__=(0, 0)))


# --- device= and the target -------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), None])
def test_to_torch_takes_a_device(road: str, device: Any) -> None:
    array = np.arange(3.0)
    assert dlbridge.to_torch(array, device=device).data_ptr() == address(array)


@pytest.mark.parametrize("device", ["nonsense", "cpu:x", ""])
def test_an_unknown_device_of_to_torch_is_a_value_error(road: str, device: str) -> None:
    with pytest.raises(ValueError) as caught:
        dlbridge.to_torch(np.arange(3.0), device=device)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


@pytest.mark.parametrize("target", ["numpy", np])
def test_the_target_may_be_named_or_given_as_a_module(road: str, target: Any) -> None:
    result = dlbridge.to(torch.ones(3), target)
    assert type(result) is np.ndarray and result.tolist() == [1, 1, 1]
    assert not dlbridge.explain(torch.ones(3), target).refused


@pytest.mark.parametrize("target", ["torch", torch])
def test_torch_may_be_named_or_given_as_a_module(road: str, target: Any) -> None:
    array = np.arange(3.0)
    result = dlbridge.to(array, target, dtype=torch.float32)
    assert type(result) is torch.Tensor and result.tolist() == [0, 1, 2]
    assert dlbridge.to(array, target, policy="strict").data_ptr() == address(array)


@pytest.mark.parametrize("target", ["no_such_library_anywhere", "", 5, None, sys])
@pytest.mark.parametrize("door", ["to", "explain"])
def test_an_unknown_target_is_a_bad_argument(door: str, target: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(dlbridge, door)(np.zeros(3), target)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


def test_any_module_with_from_dlpack_is_a_target() -> None:
    # The array API names the door that every library has.
    module = types.ModuleType("made_up_arrays")
    seen: list[Any] = []

    def from_dlpack(x: Any, /, **keywords: Any) -> Any:
        seen.append(probe.fields(x.__dlpack__(max_version=(1, 0))))
        return "made up"

    module.from_dlpack = from_dlpack
    array = np.arange(3.0)
    array.flags.writeable = False
    assert dlbridge.to(array, module) == "made up"
    assert seen[0]["data"] + seen[0]["byte_offset"] == address(array)
    assert seen[0]["flags"] & READ_ONLY


@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack", "capsule"])
def test_the_source_is_positional_and_keywords_are_checked(road: str, door: str) -> None:
    function = getattr(dlbridge, door)
    with pytest.raises(TypeError):
        function()
    with pytest.raises(TypeError):
        function(x=np.zeros(3))
    with pytest.raises(TypeError):
        function(np.zeros(3), "strict")
    with pytest.raises(TypeError, match="colour"):
        function(np.zeros(3), colour="red")


# --- capsule() --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(1, 0), (1, 3), (1, 7), (2, 0), (5, 5)])
def test_capsule_gives_our_own_1_3_to_any_later_version(version: tuple[int, int]) -> None:
    capsule = dlbridge.capsule(np.arange(3.0), max_version=version)
    assert probe.name(capsule) == "dltensor_versioned"
    assert probe.fields(capsule)["version"] == (1, 3)


@pytest.mark.parametrize("version", [None, (0, 8), (0, 0)])
def test_capsule_gives_a_legacy_one_to_older_versions(version: Any) -> None:
    array = np.arange(3.0)
    capsule = dlbridge.capsule(array, max_version=version)
    assert probe.name(capsule) == "dltensor"
    assert probe.fields(capsule)["data"] == address(array)


def test_the_default_capsule_is_versioned() -> None:
    assert probe.name(dlbridge.capsule(np.arange(3.0))) == "dltensor_versioned"


def test_read_only_memory_never_leaves_in_a_legacy_capsule(road: str) -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    leaf = torch.ones(3, requires_grad=True)
    for source in (array, leaf, producer_f32(flags=READ_ONLY), b"abc"):
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            dlbridge.capsule(source, max_version=None)
        assert caught.value.fix
        copied = dlbridge.capsule(source, max_version=None, policy="snapshot")
        assert probe.name(copied) == "dltensor"
    assert probe.fields(dlbridge.capsule(array))["flags"] == READ_ONLY


@pytest.mark.parametrize("wrong", ["x", 1, (1,), ("a", 0), (-1, 0), (1.5, 0)])
def test_a_wrong_max_version_is_a_bad_argument(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        dlbridge.capsule(np.zeros(3), max_version=wrong)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)


def test_a_capsule_of_ours_is_taken_by_everybody(road: str) -> None:
    array = np.arange(3.0)
    if TAKES_VERSIONED:
        assert torch.from_dlpack(dlbridge.capsule(array)).data_ptr() == address(array)
    assert torch.from_dlpack(dlbridge.capsule(array, max_version=None)).tolist() == [0, 1, 2]
    assert address(dlbridge.to_numpy(dlbridge.capsule(array))) == address(array)


# --- wrong values ---------------------------------------------------------------------------------

WRONG: list[Any] = [1 << 70, -(1 << 70), 1 << 63, -1, 3.5, float("nan"), "x", b"x", (), [1, 0], {}]
TENSOR = torch.ones(2)
WITH_ARGUMENTS: dict[str, Callable[[Any], object]] = {
    "stream": lambda x: dlbridge.to_numpy(TENSOR, stream=x),
    "order": lambda x: dlbridge.to_numpy(TENSOR, order=x),
    "writable": lambda x: dlbridge.to_numpy(TENSOR, writable=x),
    "copy": lambda x: dlbridge.to_numpy(TENSOR, copy=x),
    "dtype": lambda x: dlbridge.to_numpy(TENSOR, dtype=x),
    "out": lambda x: dlbridge.to_numpy(TENSOR, out=x),
    "policy": lambda x: dlbridge.to_numpy(TENSOR, policy=x),
    "device": lambda x: dlbridge.from_dlpack(TENSOR, device=(1, x)),
    "target": lambda x: dlbridge.to(TENSOR, x),
    "shape": lambda x: dlbridge.shared_empty((2, x)),
    "pinned shape": lambda x: dlbridge.pinned_empty((2, x)),
    "mode": lambda x: dlbridge.share(TENSOR, mode=x),
    "sender": lambda x: dlbridge.send(x, TENSOR),
    "receiver": lambda x: dlbridge.recv(x),
    "stream of __dlpack__": lambda x: dlbridge.from_dlpack(TENSOR).__dlpack__(stream=x),
    "dl_device": lambda x: dlbridge.from_dlpack(TENSOR).__dlpack__(dl_device=(x, 0)),
}


@pytest.mark.parametrize("argument", WITH_ARGUMENTS)
def test_a_wrong_value_of_an_argument_is_a_value_error_or_a_type_error(argument: str) -> None:
    call = WITH_ARGUMENTS[argument]
    passed = 0
    for value in WRONG:
        try:
            call(value)
            passed += 1
        except (ValueError, TypeError) as error:
            assert str(error)
    assert passed <= 6, "most of these are wrong"
