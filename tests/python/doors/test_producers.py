"""Producers written in Python: exceptions, junk, keywords, exchange tables."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import dlbridge_probe as probe
import numpy as np
import pytest
from dlb_support import (
    HOST,
    IS_COPIED,
    READ_ONLY,
    Producer,
    address,
    is_private,
    producer_f32,
    settle,
)

import dlbridge

DOORS = ("to_numpy", "to_torch", "from_dlpack", "capsule")
VALUES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


class Own(BaseException):
    """An exception that only the producer can have made."""


class Raising(Producer):
    error: BaseException

    def __dlpack__(self, **keywords: Any) -> Any:
        self.calls.append(keywords)
        raise self.error


ERRORS = [
    Own("mine"),
    KeyboardInterrupt("mine"),
    MemoryError("mine"),
    BufferError("mine"),
    RuntimeError("mine"),
    AttributeError("mine"),
    ValueError("mine"),
    NotImplementedError("mine"),
    TypeError("mine: not about a keyword"),
    TypeError("helper() got an unexpected keyword argument 'colour'"),
    TypeError("unsupported operand type(s) for +: 'int' and 'str'"),
    TypeError("__init__() missing 1 required positional argument: 'name'"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}-{str(e)[:20]}")
def test_a_producers_own_exception_comes_through_as_the_same_object(
    road: str, error: BaseException, door: str
) -> None:
    class Local(Raising):
        pass

    producer = producer_f32(kind=Local)
    producer.error = error
    with pytest.raises(type(error)) as caught:
        getattr(dlbridge, door)(producer)
    assert caught.value is error
    if isinstance(error, TypeError):
        assert len(producer.calls) == 1  # not asked again: this was not about our keywords
    error.__traceback__ = None


def test_explain_lets_a_producers_exception_through_or_needs_no_export() -> None:
    producer = producer_f32(kind=Raising)
    producer.error = Own("mine")
    with pytest.raises(Own) as caught:
        dlbridge.explain(producer, "numpy")
    assert caught.value is producer.error
    producer.error.__traceback__ = None


JUNK = [None, 42, "capsule", b"", [], object(), HOST]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("junk", JUNK, ids=lambda j: type(j).__name__)
def test_a_producer_that_returns_junk_is_refused(road: str, junk: Any, door: str) -> None:
    # The object claims to be an array, so its answer is malformed: ConversionRefused.
    class Junk(Producer):
        def __dlpack__(self, **keywords: Any) -> Any:
            return junk

    with pytest.raises(dlbridge.ConversionRefused):
        getattr(dlbridge, door)(producer_f32(kind=Junk))


@pytest.mark.parametrize("name", ["something", "used_dltensor", "dlpack_exchange_api"])
def test_a_producer_that_returns_a_capsule_of_another_name_is_refused(name: str) -> None:
    class Wrong(Producer):
        def __dlpack__(self, **keywords: Any) -> Any:
            return probe.named_capsule(name)

    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(producer_f32(kind=Wrong))


@pytest.mark.parametrize(
    "device", [None, 7, (1,), ("cpu", 0), (1, 0, 0), (2**40, 0), (-1, -1), "cpu"]
)
def test_a_nonsensical_device_of_the_object_never_crashes(device: Any) -> None:
    # The capsule is trusted: the conversion may succeed by it, or refuse the contradiction.
    class Odd(Producer):
        def __dlpack_device__(self) -> Any:
            return device

    producer = producer_f32(kind=Odd)
    with contextlib.suppress(dlbridge.ConversionRefused):
        assert dlbridge.to_numpy(producer).tolist() == VALUES
    settle()
    assert probe.deletes(producer.token) == probe.exports(producer.token)


def test_a_producer_without_a_device_method_is_accepted() -> None:
    class NoDevice:
        def __init__(self) -> None:
            self.inner = producer_f32()

        def __dlpack__(self, **keywords: Any) -> Any:
            return self.inner.__dlpack__(**keywords)

    assert dlbridge.to_numpy(NoDevice()).tolist() == VALUES


# --- keywords ---------------------------------------------------------------------------------


class Bare(Producer):
    def __dlpack__(self) -> Any:
        return self.source.capsule(versioned=False)


class StreamOnly(Producer):
    def __dlpack__(self, stream: Any = None) -> Any:
        assert stream is None  # the CPU knows no other
        return self.source.capsule(versioned=False)


class VersionOnly(Producer):
    def __dlpack__(self, *, max_version: Any = None) -> Any:
        return self.source.capsule(versioned=max_version is not None)


class VersionAndStream(Producer):
    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        assert stream is None
        return self.source.capsule(versioned=max_version is not None)


class Complete(Producer):
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any:
        assert stream is None and copy in (None, False, True)
        assert dl_device in (None, HOST)
        return self.source.capsule(versioned=max_version is not None and max_version[0] >= 1)


@pytest.mark.parametrize("kind", [Bare, StreamOnly, VersionOnly, VersionAndStream, Complete])
@pytest.mark.parametrize("door", ["to_numpy", "from_dlpack", "to_torch"])
def test_every_signature_of_dlpack_is_understood(road: str, kind: Any, door: str) -> None:
    producer = producer_f32(kind=kind)
    result = getattr(dlbridge, door)(producer)
    assert dlbridge.to_numpy(result).tolist() == VALUES
    legacy = kind in (Bare, StreamOnly)
    array = dlbridge.to_numpy(producer)
    assert array.flags.writeable == (not legacy)


@pytest.mark.parametrize("kind", [Bare, StreamOnly, VersionOnly, Complete])
def test_copies_are_real_whatever_the_producer_makes_of_the_keyword(kind: Any) -> None:
    producer = producer_f32(kind=kind)  # all of these ignore copy=True and alias
    array = dlbridge.to_numpy(producer, copy=True)
    array[...] = 9
    assert dlbridge.to_numpy(producer).tolist() == VALUES


class Counting(Producer):
    asked: ClassVar[list[dict[str, Any]]]

    def __dlpack__(self, **keywords: Any) -> Any:
        type(self).asked.append(keywords)
        for name in keywords:
            raise TypeError(f"__dlpack__() got an unexpected keyword argument '{name}'")
        return self.source.capsule(versioned=False)


def test_the_keywords_of_a_type_are_probed_once() -> None:
    class Old(Counting):
        asked: ClassVar = []

    dlbridge.to_numpy(producer_f32(kind=Old))
    first = len(Old.asked)
    assert first <= 4
    dlbridge.to_numpy(producer_f32(kind=Old))
    assert len(Old.asked) == first + 1
    assert Old.asked[-1] == {}


def test_a_versioned_capsule_is_asked_for_first_and_no_stream_is_passed_on_the_cpu() -> None:
    producer = producer_f32()
    dlbridge.to_numpy(producer)
    assert len(producer.calls) == 1
    (keywords,) = producer.calls
    assert tuple(keywords["max_version"]) >= (1, 0)
    assert keywords.get("stream") is None


def test_a_type_error_in_the_bare_retry_is_reported_and_not_hidden() -> None:
    second = TypeError("inner trouble")

    class Twice(Producer):
        def __dlpack__(self, **keywords: Any) -> Any:
            for name in keywords:
                raise TypeError(f"__dlpack__() got an unexpected keyword argument '{name}'")
            raise second

    with pytest.raises(TypeError) as caught:
        dlbridge.to_numpy(producer_f32(kind=Twice))
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert second in chain
    second.__traceback__ = None
    second.__context__ = None


# --- not an array -----------------------------------------------------------------------------

NOT_ARRAYS = [None, 3, 2.5, "text", [1.0, 2.0], (1, 2), {"a": 1}, object(), Producer, len, Ellipsis]


@pytest.mark.parametrize("door", [*DOORS, "explain", "to"])
@pytest.mark.parametrize("thing", NOT_ARRAYS, ids=lambda t: repr(t)[:20])
def test_what_is_no_array_at_all_is_a_type_error(road: str, thing: Any, door: str) -> None:
    arguments = ("numpy",) if door in ("explain", "to") else ()
    with pytest.raises(TypeError) as caught:
        getattr(dlbridge, door)(thing, *arguments)
    assert not isinstance(caught.value, dlbridge.ConversionRefused)
    assert type(thing).__name__ in str(caught.value)


@pytest.mark.parametrize("door", DOORS)
def test_the_classes_of_arrays_are_no_arrays(road: str, door: str) -> None:
    import numpy as np
    import torch

    for cls in (np.ndarray, torch.Tensor, torch.nn.Parameter, np.float32, probe.Producer):
        with pytest.raises(TypeError):
            getattr(dlbridge, door)(cls)


# --- exchange tables --------------------------------------------------------------------------


def tabled(kind: str, *, method: bool = False) -> Any:
    space: dict[str, Any] = {"__dlpack_c_exchange_api__": probe.table_named(kind)}
    if method:
        space["__dlpack__"] = lambda self, **_: self.capsule()
        space["__dlpack_device__"] = lambda self: HOST
    return type("Tabled", (probe.Producer,), space)


@pytest.mark.parametrize("kind", ["good", "no_borrow", "newer", "chain"])
@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_a_table_is_enough_to_be_a_source(road: str, kind: str, door: str) -> None:
    forbidden = probe.forbidden_calls()
    source = producer_f32(kind=tabled(kind))
    result = getattr(dlbridge, door)(source)
    assert dlbridge.to_numpy(result).tolist() == VALUES
    del result
    settle()
    assert probe.deletes(source.token) == probe.exports(source.token) > 0
    assert probe.forbidden_calls() == forbidden  # never a slot of a version that we do not know


def test_the_table_comes_before_the_method() -> None:
    before = probe.table_export_calls()
    kind = tabled("good", method=True)
    kind.__dlpack__ = lambda self, **_: pytest.fail("the table comes first")
    dlbridge.to_numpy(producer_f32(kind=kind))
    assert probe.table_export_calls() > before


UNUSABLE = ["newer_alone", "older", "no_from_py", "nothing", "broken_chain", "circle"]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_table_that_cannot_be_used_gives_way_to_the_method(kind: str) -> None:
    forbidden = probe.forbidden_calls()
    source = producer_f32(kind=tabled(kind, method=True))
    assert dlbridge.to_numpy(source).tolist() == VALUES
    assert probe.forbidden_calls() == forbidden


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_table_that_cannot_be_used_and_nothing_else_is_an_error(kind: str) -> None:
    forbidden = probe.forbidden_calls()
    with pytest.raises((dlbridge.ConversionRefused, TypeError)):
        dlbridge.to_numpy(producer_f32(kind=tabled(kind)))
    assert probe.forbidden_calls() == forbidden


def test_the_error_of_a_tables_slot_comes_through() -> None:
    with pytest.raises(LookupError, match="nothing to give"):
        dlbridge.to_numpy(producer_f32(kind=tabled("loud")))


@pytest.mark.parametrize("kind", ["silent", "empty"])
def test_a_slot_that_fails_without_an_error_is_refused(kind: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(producer_f32(kind=tabled(kind)))


def test_a_stream_that_is_not_told_without_an_error_is_refused() -> None:
    source = producer_f32(kind=tabled("streamless"), device=(10, 0))
    with pytest.raises(dlbridge.ConversionRefused, match="failed without saying why"):
        dlbridge.from_dlpack(source)
    settle()
    assert probe.deletes(source.token) == probe.exports(source.token) == 1


@pytest.mark.parametrize("attribute", [None, 5, "table", object()])
def test_a_junk_table_gives_way_to_the_method(attribute: Any) -> None:
    kind = tabled("good", method=True)
    kind.__dlpack_c_exchange_api__ = attribute
    assert dlbridge.to_numpy(producer_f32(kind=kind)).tolist() == VALUES


class Copies(Producer):
    """Its memory cannot be had, as a compressed array's cannot."""

    def __dlpack__(self, *, copy: bool | None = None, **keywords: Any) -> Any:
        if copy is False:
            raise BufferError("it cannot be had without a copy")
        return super().__dlpack__(copy=copy, **keywords)


@pytest.mark.parametrize("convert", [dlbridge.to_numpy, dlbridge.to_torch, dlbridge.from_dlpack])
def test_a_copy_of_a_producers_is_none_of_ours_to_call_a_view(convert: Any) -> None:
    made = producer_f32(flags=IS_COPIED)
    plan = dlbridge.explain(made, "numpy")
    assert not plan.view and plan.bytes_copied == 24 and plan.writable
    assert "its library hands out a copy" in plan.reasons[0]
    assert dlbridge.to_numpy(convert(made)).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(dlbridge.ConversionRefused, match="hands out a copy"):
        convert(producer_f32(flags=IS_COPIED), copy=False)
    with dlbridge.no_copies(), pytest.raises(dlbridge.ConversionRefused):
        convert(producer_f32(flags=IS_COPIED))


def given_address(made: Any) -> int:
    """Of the memory that the producer gives out."""
    return probe.fields(getattr(made, "source", made).capsule())["data"]


@pytest.mark.parametrize("how", [{}, {"copy": True}, {"writable": True}, {"policy": "snapshot"}])
@pytest.mark.parametrize("kind", [Producer, tabled("good")])
def test_a_copy_of_a_producers_is_copied_no_second_time(kind: Any, how: dict[str, Any]) -> None:
    made = producer_f32(kind=kind, flags=IS_COPIED)
    plan = dlbridge.explain(made, "numpy", **how)
    assert plan.bytes_copied == 24 and plan.notes == ()
    array = dlbridge.to_numpy(made, **how)
    assert address(array) == given_address(made) and array.flags.writeable


def test_a_copy_of_a_producers_that_is_not_as_it_is_needed_is_copied() -> None:
    for flags, changes in (
        (IS_COPIED | READ_ONLY, {}),
        (IS_COPIED, {"shape": (2, 3), "strides": (1, 2)}),
        (0, {}),
    ):
        made = producer_f32(flags=flags, **changes)
        array = dlbridge.to_numpy(made, copy=True)
        assert address(array) != given_address(made) and is_private(array)
        assert len(made.calls) == 1
    made = producer_f32(flags=IS_COPIED)
    assert dlbridge.to_numpy(made, dtype="float64").tolist() == VALUES
    out = np.empty(6, "f4")
    assert dlbridge.to_numpy(made, out=out) is out and out.tolist() == VALUES


@pytest.mark.parametrize("how", [{"copy": False}, {"policy": "zero_copy"}, {"policy": "strict"}])
def test_a_producer_is_told_that_nothing_may_be_copied(how: dict[str, Any]) -> None:
    with pytest.raises(BufferError, match="cannot be had without a copy"):
        dlbridge.to_numpy(producer_f32(kind=Copies), **how)
    with pytest.raises(BufferError, match="cannot be had without a copy"):
        dlbridge.explain(producer_f32(kind=Copies), "numpy", **how)
    assert dlbridge.to_numpy(producer_f32(kind=Copies)).size == 6


def test_a_producer_that_knows_no_copy_is_asked_without_it() -> None:
    class Old:
        def __init__(self) -> None:
            self.producer = producer_f32()

        def __dlpack__(self, stream: Any = None, max_version: Any = None) -> Any:
            return self.producer.__dlpack__(max_version=max_version)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    old = Old()
    for _ in range(2):
        assert dlbridge.to_numpy(old, copy=False).size == 6
    assert [call["max_version"] for call in old.producer.calls] == [(1, 3), (1, 3)]


class OfThePast:
    """A producer whose method has other parameters."""

    def __init__(self) -> None:
        self.producer = producer_f32()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("how", [{"copy": False}, {"policy": "zero_copy"}])
def test_a_producer_that_knows_neither_keyword_is_asked_without_both(how: dict[str, Any]) -> None:
    def bare(self: Any) -> Any:
        return self.producer.__dlpack__()

    def with_stream(self: Any, stream: Any = None) -> Any:
        return self.producer.__dlpack__()

    for method in (bare, with_stream):
        kind = type("Past", (OfThePast,), {"__dlpack__": method})  # nothing is remembered of it
        for _ in range(2):
            assert dlbridge.to_numpy(kind(), **how).size == 6


def test_an_error_that_speaks_of_copies_is_the_producers_own() -> None:
    class Cannot(OfThePast):
        def __dlpack__(self, *, copy: Any = None, **keywords: Any) -> Any:
            if copy is False:
                raise TypeError("this array cannot be exported without a copy")
            return self.producer.__dlpack__(**keywords)

    with pytest.raises(TypeError, match="cannot be exported without"):
        dlbridge.to_numpy(Cannot(), copy=False)


def test_a_copy_that_is_lent_again_is_a_view() -> None:
    class Forwards(OfThePast):
        def __init__(self) -> None:
            self.managed = dlbridge.from_dlpack(producer_f32(), copy=True)

        def __dlpack__(self, **keywords: Any) -> Any:
            return self.managed.__dlpack__(**keywords)

    lent = Forwards()
    array = dlbridge.to_numpy(lent, copy=False)
    array[0] = 7
    assert dlbridge.to_numpy(lent.managed)[0] == 7
