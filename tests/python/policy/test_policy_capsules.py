"""The policy table for what only a capsule can say: read-only, legacy, devices, pinned memory."""

from __future__ import annotations

from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
import torch
from dlb_support import PRESETS, READ_ONLY, Producer, address, is_private, producer_f32, settle

import dlbridge

VIEW = ("view", "view", "view", "copy")
VIEW_RO = ("view ro", "view ro", "view ro", "copy")
COPIED = ("refuse", "copy", "refuse", "copy")
NEVER = ("refuse", "refuse", "refuse", "refuse")

METAL, PINNED, ROCM_PINNED, MANAGED = (8, 0), (3, 0), (11, 0), (13, 0)
EXPECTED = np.arange(6, dtype="f4")


class LegacyOnly(Producer):
    """As jax, warp and TensorFlow answer: whatever is asked, an unversioned capsule."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.source.capsule(versioned=False)


class OnMetal(Producer):
    device = METAL


def bf16() -> dict[str, Any]:
    return {"data": EXPECTED.view("u2")[1::2].tobytes(), "dtype": (4, 16)}


# source: (producer, to NumPy, to torch), each for strict, host, zero_copy, snapshot.
ROWS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "writable": (lambda: producer_f32(), VIEW, VIEW),
    "NULL strides": (lambda: producer_f32(strides=None), VIEW, VIEW),
    "byte_offset": (
        lambda: producer_f32(10, shape=(6,), byte_offset=16, start=-16),
        VIEW,
        VIEW,
    ),
    "newer minor version": (lambda: producer_f32(version=(1, 99)), VIEW, VIEW),
    "NULL deleter": (lambda: producer_f32(null_deleter=True), VIEW, VIEW),
    "bfloat16": (lambda: producer_f32(**bf16()), ("refuse", "view", "view", "copy"), VIEW),
    "read-only": (lambda: producer_f32(flags=READ_ONLY), VIEW_RO, COPIED),
    # A legacy capsule says nothing about writing.
    "legacy": (lambda: producer_f32(kind=LegacyOnly), VIEW_RO, COPIED),
    "overlapping": (lambda: producer_f32(strides=(0,)), VIEW_RO, VIEW),
    "overlapping, read-only": (
        lambda: producer_f32(strides=(0,), flags=READ_ONLY),
        VIEW_RO,
        COPIED,
    ),
    "reversed": (lambda: producer_f32(strides=(-1,), start=20), VIEW, COPIED),
    "pinned": (lambda: producer_f32(device=PINNED), VIEW, VIEW),
    "pinned by ROCm": (lambda: producer_f32(device=ROCM_PINNED), VIEW, VIEW),
    "managed": (lambda: producer_f32(device=MANAGED), VIEW, VIEW),
    "pinned, read-only": (lambda: producer_f32(device=PINNED, flags=READ_ONLY), VIEW_RO, COPIED),
    # No runtime can copy from there.
    "on a device": (lambda: producer_f32(device=METAL, kind=OnMetal), NEVER, NEVER),
    "on a device, and lying about it": (lambda: producer_f32(device=METAL), NEVER, NEVER),
    # Which of the two is true cannot be known; two names for host memory are no lie.
    "on the host, and lying about it": (lambda: producer_f32(kind=OnMetal), NEVER, NEVER),
    "NULL data": (lambda: producer_f32(null_data=True), NEVER, NEVER),
    "NULL data, empty": (lambda: producer_f32(shape=(0,), null_data=True), VIEW, VIEW),
    "float4, single": (lambda: producer_f32(dtype=(17, 4, 1)), NEVER, None),
    "float4 pairs": (
        lambda: producer_f32(dtype=(17, 4, 2)),
        NEVER,
        VIEW if hasattr(torch, "float4_e2m1fn_x2") else NEVER,
    ),
    "float8_e3m4": (lambda: producer_f32(dtype=(7, 8)), ("refuse", "view", "view", "copy"), NEVER),
    "int4": (lambda: producer_f32(dtype=(0, 4)), NEVER, NEVER),
    "float6": (lambda: producer_f32(dtype=(15, 6)), NEVER, NEVER),
    "four lanes": (lambda: producer_f32(shape=(1,), dtype=(2, 32, 4)), NEVER, NEVER),
    "opaque": (lambda: producer_f32(shape=(3,), dtype=(3, 64)), NEVER, NEVER),
}
CELLS = [
    pytest.param(name, target, preset, answers[i], id=f"{name}-{target}-{preset}")
    for name, (_, *both) in ROWS.items()
    for target, answers in zip(("numpy", "torch"), both, strict=True)
    if answers is not None
    for i, preset in enumerate(PRESETS)
]


def convert(source: Any, target: str, preset: str) -> tuple[int, bool, Any]:
    """Address, writable, and the result itself."""
    result = dlbridge.to(source, target, policy=preset)
    if target == "torch":
        assert type(result) is torch.Tensor
        return result.data_ptr(), True, result
    assert type(result) is np.ndarray
    return address(result), result.flags.writeable, result


def check(name: str, target: str, answer: str, source: Any, sent: Any, preset: str) -> None:
    plan = dlbridge.explain(sent, target, policy=preset)
    if answer == "refuse":
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            dlbridge.to(sent, target, policy=preset)
        assert plan.refused and plan.reasons == caught.value.reasons != ()
        return
    where, writable, result = convert(sent, target, preset)
    assert not plan.refused
    assert plan.view == (answer != "copy")
    assert plan.writable == writable == (answer != "view ro")
    if 0 not in result.shape:
        first = source.address + (20 if name == "reversed" else 0)
        assert (where == first) == (answer != "copy")
    if answer == "copy":
        assert target == "torch" or is_private(result)
    if not name.startswith("float") and "empty" not in name:
        expected = {"reversed": EXPECTED[::-1]}.get(name, EXPECTED)
        if "overlapping" in name:
            expected = EXPECTED * 0
        assert [float(v) for v in result] == expected.tolist()


@pytest.mark.parametrize("name, target, preset, answer", CELLS)
def test_the_table_says_what_becomes_of_a_producer(
    road: str, name: str, target: str, preset: str, answer: str
) -> None:
    producer = ROWS[name][0]()
    check(name, target, answer, producer.source, producer, preset)
    settle()
    if name != "NULL deleter":
        assert probe.deletes(producer.token) == probe.exports(producer.token) > 0


@pytest.mark.parametrize(
    "name, target, preset, answer", [cell for cell in CELLS if "lying" not in cell.values[0]]
)
def test_the_table_says_what_becomes_of_a_raw_capsule(
    road: str, name: str, target: str, preset: str, answer: str
) -> None:
    producer = ROWS[name][0]()
    capsule = producer.source.capsule(versioned=name != "legacy")
    check(name, target, answer, producer.source, capsule, preset)
    assert ("used_dltensor" in repr(capsule)) == (answer != "refuse")
    del capsule
    settle()
    # Without a deleter there is nothing to count; else it ran once, and never more often.
    assert probe.deletes(producer.token) == (0 if name == "NULL deleter" else 1)


@pytest.mark.parametrize("versioned", [True, False])
def test_a_capsule_whose_value_does_not_fit_still_holds_its_tensor(
    road: str, versioned: bool
) -> None:
    producer = producer_f32(data=np.array([1, 300, 3], "i4").tobytes(), dtype=(0, 32), shape=(3,))
    capsule = producer.source.capsule(versioned=versioned)
    name = repr(capsule)
    for call in (dlbridge.to_numpy, dlbridge.to_torch):
        with pytest.raises(dlbridge.ConversionRefused, match=r"x\[1\] is 300"):
            call(capsule, dtype="int8")
        assert repr(capsule) == name and probe.deletes(producer.token) == 0
    assert dlbridge.to_numpy(capsule, dtype="int16").tolist() == [1, 300, 3]
    settle()
    assert "used_" in repr(capsule) and probe.deletes(producer.token) == 1
    del capsule
    assert probe.deletes(producer.token) == 1


def test_our_own_capsule_whose_value_does_not_fit_still_holds_its_tensor() -> None:
    before = dlbridge.stats().alive
    capsule = dlbridge.capsule(np.array([1, 300]))
    with pytest.raises(dlbridge.ConversionRefused, match="300"):
        dlbridge.to_numpy(capsule, dtype="int8")
    assert dlbridge.to_numpy(capsule, dtype="int16").tolist() == [1, 300]
    del capsule
    assert dlbridge.stats().alive == before


def test_the_device_pair_of_paddle_is_understood() -> None:
    class Paddle(Producer):
        device = (1, None)

    producer = producer_f32(kind=Paddle)
    assert dlbridge.to_numpy(producer).tolist() == EXPECTED.tolist()


def test_a_write_to_memory_flagged_read_only_is_impossible(road: str) -> None:
    producer = producer_f32(flags=READ_ONLY)
    array = dlbridge.to_numpy(producer)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 9
    dlbridge.to_torch(producer).fill_(9)
    assert probe.read(producer.source.address, 24) == EXPECTED.tobytes()


def test_the_alias_of_read_only_memory_has_to_be_asked_for(road: str) -> None:
    producer = producer_f32(flags=READ_ONLY)
    tensor = dlbridge.to_torch(producer, policy=dlbridge.Policy(readonly="alias"))
    assert tensor.data_ptr() == producer.source.address
