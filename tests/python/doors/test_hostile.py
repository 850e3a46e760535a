"""Objects that lie, change their mind, or do something else than they are asked for."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import dlbridge_probe as probe
import numpy as np
import pytest
import torch
from dlb_support import HOST, Producer, make_f32, producer_f32, settle

import dlbridge

VALUES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
DOORS: dict[str, Callable[[Any], Any]] = {
    "to_numpy": dlbridge.to_numpy,
    "to_torch": dlbridge.to_torch,
    "from_dlpack": dlbridge.from_dlpack,
    "capsule": dlbridge.capsule,
}


def all_released(producer: Any) -> bool:
    settle()
    return probe.deletes(producer.token) == probe.exports(producer.token)


# --- deleters ---------------------------------------------------------------------------------


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was raised where nobody could catch it."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
    return seen


def raise_lookup_error() -> None:
    raise LookupError("from the deleter")


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("on_thread", [True, False])
def test_what_a_deleter_raises_is_reported_and_harms_nobody(
    unraisable: list[Any], versioned: bool, on_thread: bool
) -> None:
    capsule, token = make_f32(on_delete=raise_lookup_error, versioned=versioned)
    held = probe.hold(dlbridge.capsule(dlbridge.from_dlpack(capsule)))
    (held.release_on_thread if on_thread else held.release)()
    del held
    settle()
    assert probe.deletes(token) == 1
    assert [str(error) for error in unraisable] == ["from the deleter"]


@pytest.mark.parametrize("versioned", [True, False])
def test_a_refusal_stands_whatever_the_deleter_raises(
    unraisable: list[Any], versioned: bool
) -> None:
    capsule, token = make_f32(on_delete=raise_lookup_error, versioned=versioned, dtype=(99, 8))
    with pytest.raises(dlbridge.ConversionRefused, match="99"):
        dlbridge.to_numpy(capsule)
    assert probe.deletes(token) == 0  # what is refused is still in its capsule
    gives = type("Gives", (), {"__dlpack__": lambda self, **asked: capsule})
    with pytest.raises(dlbridge.ConversionRefused, match="99"):
        dlbridge.to_numpy(gives())
    assert probe.deletes(token) == 1
    assert [str(error) for error in unraisable] == ["from the deleter"]


def test_an_error_on_its_way_is_not_lost_in_a_deleter(unraisable: list[Any]) -> None:
    held = [dlbridge.from_dlpack(make_f32(on_delete=raise_lookup_error)[0])]
    with pytest.raises(KeyError, match="on its way"):
        try:
            raise KeyError("on its way")
        finally:
            held.clear()
    assert len(unraisable) == 1


def test_a_deleter_may_call_back_into_us(road: str) -> None:
    tokens: list[int] = []
    kept: list[Any] = []

    def nested(depth: int) -> Any:
        def call_back() -> None:
            kept.append(dlbridge.to_numpy(torch.ones(2)))
            kept.append(dlbridge.to_torch(np.ones(2)))
            if depth:
                view = dlbridge.from_dlpack(nested(depth - 1))
                probe.hold(dlbridge.capsule(view)).release_on_thread()
                del view
            kept.clear()  # drops views from inside of a release
            settle()

        capsule, token = make_f32(on_delete=call_back)
        tokens.append(token)
        return capsule

    for release in ("release", "release_on_thread"):
        tokens.clear()
        held = probe.hold(dlbridge.capsule(dlbridge.from_dlpack(nested(4))))
        getattr(held, release)()
        settle()
        assert [probe.deletes(token) for token in tokens] == [1] * 5


@pytest.mark.leaves_behind
def test_one_structure_in_two_capsules_is_released_once_for_each() -> None:
    # Whose memory is freed twice then is the producer's own affair, but it is never three times,
    # and the structure is not read again once it was taken in.
    capsule, token = make_f32()
    arrays = [dlbridge.to_numpy(probe.twin(capsule)), dlbridge.to_numpy(capsule)]
    del arrays[0]
    settle()
    assert probe.deletes(token) == 1
    assert arrays[0].shape == (6,)  # though its structure says something else by now
    del arrays
    settle()
    assert probe.deletes(token) == 2


# --- producers --------------------------------------------------------------------------------

CUDA, METAL = (2, 0), (8, 0)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("declared, found", [(CUDA, HOST), (METAL, HOST), (HOST, METAL)])
def test_a_device_that_is_not_the_capsules_is_refused(
    road: str, declared: tuple[int, int], found: tuple[int, int], door: str
) -> None:
    class Liar(Producer):
        device = declared

    producer = producer_f32(kind=Liar, device=found)
    with pytest.raises(dlbridge.ConversionRefused, match="declares"):
        DOORS[door](producer)
    assert all_released(producer)


def test_a_device_that_changes_with_every_look_is_judged_by_its_last(road: str) -> None:
    class Restless(Producer):
        looks = itertools.cycle([HOST, CUDA, METAL, None])

        def __dlpack_device__(self) -> Any:
            return next(self.looks)

    producer = producer_f32(kind=Restless)
    for door in itertools.islice(itertools.cycle(DOORS.values()), 16):
        with contextlib.suppress(dlbridge.ConversionRefused):
            door(producer)
    assert all_released(producer)


@pytest.mark.parametrize("door", DOORS)
def test_an_error_of_the_device_method_is_the_producers_own(road: str, door: str) -> None:
    class Broken(Producer):
        def __dlpack_device__(self) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        DOORS[door](producer_f32(kind=Broken))


SECOND_ANSWERS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "an object": object(),
    "of no keywords": lambda: None,
    "of no answer": lambda **_: None,
    "gone": AttributeError("gone"),
}


@pytest.mark.parametrize("name", SECOND_ANSWERS)
def test_a_method_that_changes_between_probe_and_call_is_an_error(name: str) -> None:
    second = SECOND_ANSWERS[name]

    class Changing:
        def __init__(self) -> None:
            self.inner = producer_f32()
            self.answers = iter([self.inner.__dlpack__])

        @property
        def __dlpack__(self) -> Any:
            for answer in self.answers:
                return answer
            if isinstance(second, Exception):
                raise AttributeError("gone")
            return second

    changing = Changing()
    assert dlbridge.to_numpy(changing).tolist() == VALUES
    with pytest.raises((dlbridge.ConversionRefused, TypeError, AttributeError)):
        dlbridge.to_numpy(changing)
    assert all_released(changing.inner)


class AnswersEverything:
    """As proxies and mocks do: whatever is asked for is there."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self


class MetaAnswersEverything(type):
    def __getattr__(cls, name: str) -> Any:
        return cls


class OfSuchAClass(metaclass=MetaAnswersEverything):
    pass


class ClaimsToBeATensor:
    __class__ = torch.Tensor


class ClaimsToBeAnArray:
    __class__ = np.ndarray


def answers_nothing_but_errors(self: Any, name: str) -> Any:
    raise ZeroDivisionError(name)


RaisesForEverything = type("RaisesForEverything", (), {"__getattr__": answers_nothing_but_errors})

NO_ARRAYS = [
    AnswersEverything(),
    AnswersEverything,
    OfSuchAClass(),
    OfSuchAClass,
    ClaimsToBeATensor(),
    ClaimsToBeAnArray(),
    RaisesForEverything(),
    mock.Mock(),
    mock.MagicMock(),
    mock.MagicMock(spec=np.ndarray),
    mock.MagicMock(spec=torch.Tensor),
    mock,
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("thing", NO_ARRAYS, ids=lambda thing: type(thing).__name__)
def test_what_only_pretends_is_no_array(road: str, thing: Any, door: str) -> None:
    with pytest.raises((TypeError, dlbridge.ConversionRefused)):
        DOORS[door](thing)


def test_a_producer_that_answers_everything_else_is_refused_or_read() -> None:
    class Both(AnswersEverything):
        def __init__(self) -> None:
            self.inner = producer_f32()

        def __dlpack__(self, **keywords: Any) -> Any:
            return self.inner.__dlpack__(**keywords)

    both = Both()
    with pytest.raises(dlbridge.ConversionRefused, match="__dlpack_device__"):
        dlbridge.to_numpy(both)  # its device is a Both
    Both.__dlpack_device__ = lambda self: HOST  # type: ignore[attr-defined]
    assert dlbridge.to_numpy(both).tolist() == VALUES
    assert all_released(both.inner)


def test_a_table_that_succeeds_with_an_error_set_is_its_error() -> None:
    kind = type(
        "Tabled", (probe.Producer,), {"__dlpack_c_exchange_api__": probe.table_named("erring")}
    )
    source = producer_f32(kind=kind)
    with pytest.raises(LookupError, match="succeeds with an error"):
        dlbridge.to_numpy(source)
    assert all_released(source)


# --- interfaces -------------------------------------------------------------------------------


class Interface:
    def __init__(self, **changes: Any) -> None:
        self.memory = bytearray(64)
        self.__array_interface__ = {
            "version": 3,
            "typestr": "<f4",
            "shape": (4,),
            "data": self.memory,
        } | changes


class LyingSequence:
    def __init__(self, length: Any, item: Any) -> None:
        self.length, self.item = length, item

    def __len__(self) -> int:
        return self.length() if callable(self.length) else self.length

    def __getitem__(self, index: int) -> Any:
        return self.item() if callable(self.item) else self.item


def raise_zero_division() -> int:
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize("name", ["shape", "strides"])
@pytest.mark.parametrize(
    "sequence",
    [
        LyingSequence(raise_zero_division, 4),
        LyingSequence(1, raise_zero_division),
        LyingSequence(2**40, raise_zero_division),
        LyingSequence(1, object()),
        LyingSequence(1, 2**70),
    ],
)
def test_a_shape_that_lies_is_refused_or_its_own_error(name: str, sequence: Any) -> None:
    with pytest.raises((dlbridge.ConversionRefused, ZeroDivisionError)):
        dlbridge.to_numpy(Interface(**{name: sequence}))


@pytest.mark.parametrize(
    "changes",
    [
        {"typestr": "<f9223372036854775807"},
        {"typestr": "<f-8"},
        {"typestr": "<f-9223372036854775808"},
        {"typestr": "|V9223372036854775807"},
        {"offset": 2**62},
        {"offset": -1},
        {"offset": 64},
        {"shape": (17,)},
        {"shape": (2**62,)},
        {"shape": (2**61, 8)},
        {"strides": (-4,)},
        {"strides": (2**62,)},
        {"shape": (2, 2), "strides": (2**62, 2**62)},
        {"shape": (2, 2), "strides": (-(2**63), 4)},
        {"strides": (4, 4)},
    ],
    ids=repr,
)
def test_an_interface_that_leaves_its_own_buffer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(Interface(**changes))


def test_an_interface_may_be_altered_while_it_is_read() -> None:
    class Altering:
        def __index__(self) -> int:
            del interface.__array_interface__["data"]
            interface.memory = bytearray(0)
            return 4

    interface = Interface(shape=[Altering()])
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(interface)


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [17]},
        {"shape": [2**61, 8]},
        {"shape": [-16]},
        {"shape": [], "ndim": 1},
        {"shape": [], "ndim": -1},
        {"shape": [], "ndim": 65},
        {"shape": [16], "itemsize": 0},
        {"shape": [16], "itemsize": -4},
        {"shape": [16], "itemsize": 2**62},
        {"shape": [16], "length": 2**62},
        {"shape": [16], "strides": [2**62]},
        {"shape": [16], "strides": [-(2**63)]},
        {"shape": [16], "format": ""},
        {"shape": [16], "format": "=ff"},
    ],
    ids=repr,
)
def test_a_buffer_that_contradicts_itself_is_refused(said: dict[str, Any]) -> None:
    buffer = probe.Buffer(**said)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(buffer)
    assert buffer.taken == 0


def test_a_buffer_that_says_the_truth_is_viewed() -> None:
    buffer = probe.Buffer(shape=[4, 4], strides=[4, 16])
    array = dlbridge.to_numpy(buffer)
    assert array.shape == (4, 4) and array.strides == (4, 16) and buffer.taken == 1
    del array
    assert buffer.taken == 0


# --- types that are altered after they were probed ------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[type]:
    class Fresh(Producer):
        pass

    yield Fresh


def test_a_method_that_is_replaced_is_called_from_then_on(fresh: Any) -> None:
    producer = producer_f32(kind=fresh)
    for value in range(5):
        fresh.__dlpack__ = lambda self, value=value, **_: make_f32(
            1, data=np.float32(value).tobytes()
        )[0]
        assert dlbridge.to_numpy(producer).tolist() == [value]


def test_a_door_that_is_taken_away_is_gone_and_comes_back(fresh: Any) -> None:
    class Sealed:
        __slots__ = ("inner",)

    sealed = Sealed()
    sealed.inner = producer_f32(kind=fresh)
    for _ in range(3):
        with pytest.raises(TypeError, match="Sealed"):
            dlbridge.to_numpy(sealed)
        Sealed.__dlpack__ = lambda self, **keywords: self.inner.__dlpack__(**keywords)
        assert dlbridge.to_numpy(sealed).tolist() == VALUES
        del Sealed.__dlpack__


def test_a_base_class_that_is_altered_counts_too(fresh: Any) -> None:
    class Derived(fresh):
        pass

    producer = producer_f32(kind=Derived)
    assert dlbridge.to_numpy(producer).tolist() == VALUES
    fresh.__dlpack_c_exchange_api__ = probe.table_named("loud")
    with pytest.raises((LookupError, dlbridge.ConversionRefused)):
        dlbridge.to_numpy(producer)
    del fresh.__dlpack_c_exchange_api__
    assert dlbridge.to_numpy(producer).tolist() == VALUES


def test_a_signature_that_changed_is_asked_anew(fresh: Any) -> None:
    producer = producer_f32(kind=fresh)
    fresh.__dlpack__ = lambda self: self.source.capsule(versioned=False)
    assert not dlbridge.to_numpy(producer).flags.writeable
    fresh.__dlpack__ = lambda self, *, max_version: self.source.capsule()
    assert dlbridge.to_numpy(producer).flags.writeable


def test_an_object_that_changes_its_class_goes_by_the_new_one(fresh: Any) -> None:
    class Other(Producer):
        def __dlpack__(self, **keywords: Any) -> Any:
            raise LookupError("the other class")

    producer = producer_f32(kind=fresh)
    assert dlbridge.to_numpy(producer).tolist() == VALUES
    producer.__class__ = Other
    with pytest.raises(LookupError, match="the other class"):
        dlbridge.to_numpy(producer)
    producer.__class__ = fresh
    assert dlbridge.to_numpy(producer).tolist() == VALUES


def test_a_type_that_alters_itself_while_it_is_probed_is_not_remembered_wrongly() -> None:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            # Asked for the last door that there is, it opens the one that was asked for before.
            if name == "__array_interface__":
                cls.__dlpack__ = lambda self, **keywords: make_f32()[0]
            raise AttributeError(name)

    class Shifting(metaclass=Meta):
        __slots__ = ()

    with pytest.raises(TypeError):
        dlbridge.to_numpy(Shifting())
    assert dlbridge.to_numpy(Shifting()).tolist() == VALUES


def test_types_that_come_and_go_are_never_mistaken_for_each_other() -> None:
    # Their addresses are used again, and there are more of them than are remembered.
    def method(self: Any, **_: Any) -> Any:
        return make_f32(1)[0]

    for index in range(600):
        space: dict[str, Any] = {"__slots__": ()}
        if index % 2:
            space["__dlpack__"] = method
        source = type(f"T{index}", (), space)()
        if index % 2:
            assert dlbridge.to_numpy(source).tolist() == [0]
        else:
            with pytest.raises(TypeError):
                dlbridge.to_numpy(source)
