"""Malformed capsules at every door: a clear refusal, the deleter exactly once, nothing leaked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
from dlb_support import Producer, make_f32, producer_f32, run_child, settle

import dlbridge

# What is wrong: (changes to a good capsule, a word of the refusal or None).
MALFORMED: dict[str, tuple[dict[str, Any], str | None]] = {
    "major version 2": ({"version": (2, 0)}, "version"),
    "major version 2, rest is junk": (
        {"version": (2, 0), "ndim": -5, "null_shape": True, "null_data": True, "flags": 2**40},
        "version",
    ),
    "dtype code 99": ({"dtype": (99, 8)}, "99"),
    "dtype code 18": ({"dtype": (18, 8)}, "18"),
    "0 bits": ({"dtype": (2, 0)}, None),
    "0 lanes": ({"dtype": (2, 32, 0)}, None),
    "float4 of 8 bits": ({"dtype": (17, 8)}, None),
    "float6 of 8 bits": ({"dtype": (15, 8)}, None),
    "float8 of 16 bits": ({"dtype": (10, 16)}, None),
    "ndim -1": ({"ndim": -1}, "ndim|dimension"),
    "ndim of the least int": ({"ndim": -(2**31)}, "ndim|dimension"),
    "65 dimensions": ({"shape": (1,) * 65}, "dimension"),
    "2**31 - 1 dimensions": ({"ndim": 2**31 - 1}, "dimension"),
    "negative extent": ({"shape": (-3,)}, "size|shape|negative"),
    "negative beside 0": ({"shape": (0, -3)}, "size|shape|negative"),
    "NULL shape": ({"null_shape": True}, "shape"),
    "NULL data": ({"null_data": True}, "NULL|null|data"),
    "NULL data and an offset": ({"null_data": True, "byte_offset": 64}, "NULL|null|data"),
    "elements overflow": ({"shape": (2**40, 2**40)}, "overflow|size|bytes"),
    "bytes overflow": ({"shape": (2**61,), "dtype": (2, 64)}, "overflow|size|bytes"),
    "bytes overflow by lanes": (
        {"shape": (2**50,), "dtype": (2, 64, 65535)},
        "overflow|size|bytes",
    ),
    "strides overflow": ({"shape": (3, 3), "strides": (2**62, 1)}, "overflow|stride"),
    "strides of the least int": ({"shape": (3,), "strides": (-(2**63),)}, "overflow|stride"),
    "strides leave the address space": ({"shape": (2,), "strides": (-(2**57),)}, "address space"),
    "byte_offset overflows": ({"byte_offset": 2**64 - 8}, None),
}
# Only a versioned capsule has a version and flags.
LEGACY = [name for name in MALFORMED if "version" not in name]

DOORS: dict[str, Callable[[Any], Any]] = {
    "to_numpy": dlbridge.to_numpy,
    "to_torch": dlbridge.to_torch,
    "from_dlpack": dlbridge.from_dlpack,
    "capsule": dlbridge.capsule,
    "snapshot": lambda x: dlbridge.to_numpy(x, copy=True),
}
KINDS = [(name, True) for name in MALFORMED] + [(name, False) for name in LEGACY]


def check_refusal(door: Callable[[Any], Any], source: Any, word: str | None) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match=word) as caught:
        door(source)
    assert caught.value.reasons and all(isinstance(r, str) for r in caught.value.reasons)
    assert len(str(caught.value)) < 2000  # a person reads it


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name, versioned", KINDS)
def test_a_malformed_raw_capsule_is_refused_and_released_once(
    road: str, name: str, versioned: bool, door: str
) -> None:
    changes, word = MALFORMED[name]
    capsule, token = make_f32(versioned=versioned, **changes)
    check_refusal(DOORS[door], capsule, word)
    assert probe.deletes(token) <= 1
    del capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", MALFORMED)
def test_a_producer_of_malformed_capsules_is_refused_and_released_once(
    road: str, name: str, door: str
) -> None:
    changes, word = MALFORMED[name]
    producer = producer_f32(**changes)
    check_refusal(DOORS[door], producer, word)
    settle()
    assert probe.deletes(producer.token) == probe.exports(producer.token) > 0


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_tensor_from_an_exchange_table_is_refused(name: str) -> None:
    class Tabled(probe.Producer):
        __dlpack_c_exchange_api__ = probe.table_named("no_borrow")

    changes, word = MALFORMED[name]
    source = producer_f32(kind=Tabled, **changes)
    check_refusal(dlbridge.to_numpy, source, word)
    settle()
    assert probe.deletes(source.token) == probe.exports(source.token) > 0


@pytest.mark.parametrize("name", MALFORMED)
def test_explain_says_what_is_wrong_and_leaves_the_capsule_alone(name: str) -> None:
    capsule, token = make_f32(**MALFORMED[name][0])
    plan = dlbridge.explain(capsule, "numpy")
    assert plan.refused and plan.reasons
    assert probe.name(capsule) == "dltensor_versioned"
    assert probe.deletes(token) == 0
    del capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("door", DOORS)
def test_a_capsule_can_be_used_once_only(road: str, door: str, versioned: bool) -> None:
    capsule, token = make_f32(versioned=versioned)
    first = dlbridge.to_numpy(capsule)
    assert probe.name(capsule).startswith("used_")
    with pytest.raises(dlbridge.ConversionRefused, match=r"used|consumed"):
        DOORS[door](capsule)
    assert first.tolist() == [0, 1, 2, 3, 4, 5]
    assert probe.deletes(token) == 0
    del first, capsule
    settle()
    assert probe.deletes(token) == 1


def test_explain_of_a_used_capsule_is_refused_too() -> None:
    capsule, _ = make_f32()
    dlbridge.to_numpy(capsule)
    assert dlbridge.explain(capsule, "numpy").refused


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["something_else", "", "dlpack_exchange_api", "dltensor_v2"])
def test_capsules_of_other_names_are_refused(road: str, door: str, name: str) -> None:
    # A capsule that holds no tensor is malformed rather than "not an array at all"; both errors are
    # right in their way, a crash is not.
    with pytest.raises((dlbridge.ConversionRefused, TypeError)):
        DOORS[door](probe.named_capsule(name))


@pytest.mark.parametrize("versioned", [True, False])
def test_a_null_deleter_is_allowed(versioned: bool) -> None:
    capsule, token = make_f32(versioned=versioned, null_deleter=True)
    array = dlbridge.to_numpy(capsule)
    assert array.tolist() == [0, 1, 2, 3, 4, 5]
    del array, capsule
    settle()
    assert probe.deletes(token) == 0
    capsule, _ = make_f32(versioned=versioned, null_deleter=True)
    managed = dlbridge.from_dlpack(capsule)
    assert probe.fields(managed.__dlpack__(max_version=(1, 0), copy=True))["has_deleter"]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 2**40)])
@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_empty_tensors_are_accepted_with_and_without_data(
    road: str, shape: tuple[int, ...], null: bool, door: str
) -> None:
    capsule, token = make_f32(shape=shape, null_data=null)
    result = DOORS[door](capsule)
    assert tuple(result.shape) == shape
    del result, capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("shape", [(0, 2**62, 3), (0, 2**62, 2**62), (2**62, 2**62, 0)])
@pytest.mark.parametrize("copy", [None, True])
@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_sizes_that_overflow_beside_a_zero_are_viewed_or_refused(
    road: str, shape: tuple[int, ...], copy: bool | None, door: str
) -> None:
    # NumPy and torch each have their own idea of what is too large. On the portable road torch
    # finds it when it has taken the tensor already.
    capsule, token = make_f32(shape=shape)
    try:
        assert tuple(getattr(dlbridge, door)(capsule, copy=copy).shape) == shape
    except dlbridge.ConversionRefused as refused:
        assert door != "from_dlpack" and "\n" not in str(refused)
    del capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("strides", [(2**62, 1), (-(2**62), 2**62)])
def test_strides_beside_a_zero_may_be_anything_in_a_buffer(strides: tuple[int, ...]) -> None:
    capsule, token = make_f32(shape=(0, 3), strides=strides)
    view = memoryview(dlbridge.from_dlpack(capsule))
    assert view.shape == (0, 3) and view.nbytes == 0
    del view, capsule
    settle()
    assert probe.deletes(token) == 1


@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_a_0d_capsule_may_have_no_shape_and_no_strides(road: str, door: str) -> None:
    capsule, token = make_f32(1, shape=(), null_shape=True)
    result = DOORS[door](capsule)
    assert tuple(result.shape) == ()
    assert dlbridge.to_numpy(result).item() == 0.0
    del result, capsule
    settle()
    assert probe.deletes(token) == 1


def test_a_thousand_refusals_leave_nothing_behind() -> None:
    tokens = []
    for i in range(1000):
        changes, _ = list(MALFORMED.values())[i % len(MALFORMED)]
        capsule, token = make_f32(**changes)
        tokens.append(token)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(capsule)
    del capsule
    settle()
    assert [probe.deletes(token) for token in tokens] == [1] * 1000


def test_a_failed_conversion_can_be_repeated_without_harm() -> None:
    # Whether a refusal consumes the capsule or leaves it, the second try is refused as well.
    capsule, token = make_f32(dtype=(99, 8))
    for _ in range(3):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(capsule)
    del capsule
    settle()
    assert probe.deletes(token) == 1


def test_a_refusal_by_policy_releases_a_good_capsule_once(road: str) -> None:
    capsule, token = make_f32(flags=1)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(capsule, policy="strict")
    del capsule
    settle()
    assert probe.deletes(token) == 1


def test_an_unconsumed_capsule_of_ours_is_freed_once() -> None:
    producer = producer_f32(strides=(1,))
    for version in ((1, 0), (0, 8)):
        before = probe.deletes(producer.token)
        capsule = dlbridge.capsule(producer, max_version=version)
        settle()
        assert probe.exports(producer.token) - probe.deletes(producer.token) == 1
        del capsule
        settle()
        assert probe.deletes(producer.token) > before
        assert probe.exports(producer.token) == probe.deletes(producer.token)


class SameCapsuleAlways(Producer):
    def __init__(self, **recipe: Any) -> None:
        super().__init__(**recipe)
        self.only = self.source.capsule()

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.only


def test_a_producer_that_hands_out_the_same_capsule_twice_is_refused_the_second_time() -> None:
    producer = producer_f32(kind=SameCapsuleAlways)
    first = dlbridge.to_numpy(producer)
    with pytest.raises(dlbridge.ConversionRefused, match=r"used|consumed"):
        dlbridge.to_numpy(producer)
    assert first.tolist() == [0, 1, 2, 3, 4, 5]
    token = producer.token
    del first, producer
    settle()
    assert probe.deletes(token) == 1


def test_random_bytes_in_the_structure_never_crash() -> None:
    """A storm of random structures in a child: refused or converted, never a crash or a leak."""
    run_child(
        """
import random
import numpy as np
from dlb_support import live, settle
import dlbridge, dlbridge_probe as probe

rng = random.Random(7)
pick = rng.choice
CODES = [0, 1, 2, 2, 4, 5, 6, 10, 17, 99]
settle()
before = live()
for _ in range(6000):
    ndim = pick([0, 1, 2, 3])
    shape = [pick([-1, 0, 1, 2, 3, 2**31, 2**62]) for _ in range(ndim)]
    changes = dict(
        shape=shape,
        strides=pick([None, [pick([0, 1, 2, -1, 3, 2**61, -2**63]) for _ in range(ndim)]]),
        ndim=pick([ndim, ndim, ndim, ndim, -1, 65]),
        dtype=(pick(CODES), pick([0, 4, 8, 16, 32, 64, 128]), pick([1, 1, 1, 0, 2])),
        device=(pick([1, 1, 1, 3, 2, 8, 0, 99]), pick([0, 0, 1, -1])),
        version=pick([(1, 3), (1, 0), (1, 99), (2, 0), (0, 8)]),
        flags=pick([0, 1, 2, 4, 7, 2**63]),
        byte_offset=pick([0, 0, 0, 4, 2**63]),
        null_data=rng.random() < 0.2,
        null_shape=rng.random() < 0.1,
        null_deleter=rng.random() < 0.1,
        versioned=rng.random() < 0.7,
        data=bytes(4096),
        start=2048,
    )
    capsule, token = probe.make(**changes)
    try:
        managed = dlbridge.from_dlpack(capsule)
    except dlbridge.ConversionRefused:
        pass
    else:
        repr(managed), managed.shape, managed.strides, str(managed.dtype), str(managed.device)
        dlbridge.explain(managed, "numpy")
        del managed
    del capsule
    settle() if _ % 500 == 0 else None
    if not changes["null_deleter"]:
        assert probe.deletes(token) == 1, changes
settle()
assert live() == before
print("done")
"""
    ).endswith("done\n")


def test_numpy_reads_through_a_wild_but_legal_layout() -> None:
    data = np.arange(40, dtype="f4")
    capsule, _ = probe.make(
        data=data.tobytes(), start=80, byte_offset=8, shape=(2, 3, 1), strides=(-10, 2, 99)
    )
    array = dlbridge.to_numpy(capsule)
    assert array.tolist() == [[[22], [24], [26]], [[12], [14], [16]]]
