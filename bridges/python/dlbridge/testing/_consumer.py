"""Rules 15 to 27: consumers."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dlbridge.testing._hand_made import (
    FLOAT4,
    HandMade,
    Raising,
    SameCapsule,
    WithoutMethods,
    floats,
)
from dlbridge.testing._rules import Kind, NotApplicable, Violation, enter, given, refusal, require
from dlbridge.testing._structures import PADDED, READ_ONLY, capsule_name, managed_in

rule = functools.partial(enter, "consumer")


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """Something that takes tensors.

    ``take(producer)`` gives the library's object, ``values(result)`` its elements as nested lists,
    in rows. Optional: ``write(result)`` overwrites every element, or raises; ``device(result)`` is
    DLPack's pair; ``across(producer)`` asks for another device with copy=False.
    """

    take: Callable[[Any], Any]
    values: Callable[[Any], Any]
    write: Callable[[Any], None] | None = None
    device: Callable[[Any], tuple[int, int]] | None = None
    across: Callable[[Any], Any] | None = None
    kind: ClassVar[Kind] = "consumer"


def _ended(producer: HandMade, what: str = "") -> None:
    producer.forget_capsules()
    gc.collect()
    if not producer.recipe.deleter:
        return
    require(
        producer.deleted == producer.made,
        f"{producer.made} tensors were handed out{what}, and deleters called {producer.deleted} "
        "times",
    )


def _attempt(subject: Consumer, producer: Any) -> tuple[Any, str]:
    """The result and no text, or nothing and the error's: its traceback would hold the capsule."""
    try:
        return subject.take(producer), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _refused(subject: Consumer, producer: HandMade, what: str) -> None:
    result, error = _attempt(subject, producer)
    require(error, f"it accepted {what}")
    del result
    _ended(producer, f" and {what} refused")


def _supported(subject: Consumer, producer: HandMade, what: str) -> Any:
    """The result, or NotApplicable where the consumer refuses: DLPack lets it."""
    result, error = _attempt(subject, producer)
    if error:
        _ended(producer, f" and {what} refused")
        raise NotApplicable(f"it refuses {what}: {error}")
    return result


def _require_versioned(subject: Consumer) -> None:
    producer = HandMade()
    with contextlib.suppress(Exception):
        subject.take(producer)
    if not any((call.get("max_version") or (0, 0))[0] >= 1 for call in producer.calls):
        raise NotApplicable("it asks for legacy capsules only")


def _compare(
    subject: Consumer, producer: HandMade, expected: Any, what: str = "", note: str = ""
) -> None:
    """Takes the tensor, compares the values, and looks that the deleter ran once in the end.
    ``what`` names a tensor that may be refused."""
    result = _supported(subject, producer, what) if what else subject.take(producer)
    found = subject.values(result)
    require(found == expected, f"the values are {found}, and should be {expected}{note}")
    del result
    _ended(producer)


SIX = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@rule(15, 'A capsule that was consumed is called "used_..."; consuming it again fails.')
def capsule_is_used_up(subject: Consumer) -> None:
    producer = SameCapsule()
    result = subject.take(producer)
    name = capsule_name(producer.capsules[0]).decode()
    values = subject.values(result)
    require(values == SIX, f"the values are {values}")
    second, error = _attempt(subject, producer)
    require(error, "it consumed the same capsule twice")
    require(name.startswith("used_"), f"a consumed capsule is still called {name!r}")
    del result, second
    _ended(producer)


@rule(16, "On another major version the deleter is called, and nothing past the flags is read.")
def other_major_version(subject: Consumer) -> None:
    _require_versioned(subject)
    _refused(subject, HandMade(version=(2, 0)), "a tensor of DLPack 2.0")


@rule(17, "A newer minor version is fine where the values are known.", must=False)
def newer_minor_version(subject: Consumer) -> None:
    _require_versioned(subject)
    _compare(subject, HandMade(version=(1, 99)), SIX)


@rule(
    18,
    "Only a TypeError about the keyword leads to a call without it; any other reaches the caller.",
)
def type_error_is_read(subject: Consumer) -> None:
    producer = Raising(lambda: TypeError("these elements cannot be exported"))
    try:
        subject.take(producer)
    except Exception as error:
        require(
            "these elements cannot be exported" in _chain(error),
            f"the producer's own TypeError was lost: {type(error).__name__}: {error}",
        )
        return
    raise Violation("it gave a result though the producer raised TypeError")


@rule(19, "The deleter is called exactly once, on every way of refusing too; NULL is allowed.")
def deleter_exactly_once(subject: Consumer) -> None:
    for fields in (
        {},
        {"versioned": False},
        {"dtype": (99, 32, 1)},
        {"device": (12, 7)},
        {"shape": (0, 3), "strides": (3, 1), "null_data": True},
    ):
        producer = HandMade(**fields)
        result, _ = _attempt(subject, producer)
        del result
        _ended(producer, f" with {fields}" if fields else "")


@rule(19, "A NULL deleter is allowed.")
def null_deleter(subject: Consumer) -> None:
    _compare(subject, HandMade(deleter=False), SIX)


@rule(20, "byte_offset is applied.")
def byte_offset(subject: Consumer) -> None:
    for versioned in (True, False):
        producer = HandMade(lead=64, versioned=versioned)
        _compare(subject, producer, SIX, "a byte_offset", ": the offset is ignored")


@rule(21, "NULL strides of a legacy tensor mean C order.")
def null_strides(subject: Consumer) -> None:
    result, error = _attempt(subject, HandMade(versioned=False))
    del result
    if error:
        raise NotApplicable("it takes versioned capsules only")
    producer = HandMade(shape=(2, 3), strides=None, versioned=False)
    _compare(subject, producer, [SIX[:3], SIX[3:]])


@rule(21, "Strides are applied, or refused.")
def strides(subject: Consumer) -> None:
    producer = HandMade(shape=(2, 2), strides=(3, 2), data=floats(SIX))
    _compare(subject, producer, [[0.0, 2.0], [3.0, 5.0]], "a tensor with gaps")


@rule(22, "float4 and float6 with other bits than theirs are refused.")
def bits_of_float4(subject: Consumer) -> None:
    for dtype in ((17, 8, 1), (15, 8, 1)):
        _refused(subject, HandMade(dtype=dtype, data=bytes(6)), f"the type {dtype}")


@rule(22, "Elements that are padded to bytes are not read as packed ones.")
def padded_float4(subject: Consumer) -> None:
    result = _supported(subject, HandMade(dtype=FLOAT4, data=bytes(3)), "packed float4")
    padded = HandMade(dtype=FLOAT4, data=bytes(6), flags=PADDED)
    result, error = _attempt(subject, padded)
    if not error:
        # What only carries the tensor on has to say so there.
        flags = 0
        with contextlib.suppress(Exception):
            exported = result.__dlpack__(max_version=(1, 3))
            flags = managed_in(exported).flags
            del exported
        require(flags & PADDED, "it took a padded float4 tensor for a packed one")
    del result
    _ended(padded)


@rule(
    23,
    "Read-only memory is accepted by who knows nothing of it; here: and never written to.",
    must=False,
)
def read_only(subject: Consumer) -> None:
    producer = HandMade(flags=READ_ONLY)
    before = producer.content()
    result = _supported(subject, producer, "read-only memory")
    if not any(call.get("max_version") for call in producer.calls):
        raise NotApplicable("it asks for legacy capsules, which cannot say read-only")
    write = given(subject.write, "write()")
    with contextlib.suppress(Exception):
        write(result)
    require(producer.content() == before, "read-only memory was written to")
    del result
    _ended(producer)


class _OwnError(Exception):
    pass


@rule(
    24,
    "The producer's own exceptions reach the caller, KeyboardInterrupt included; without the "
    "methods it is an AttributeError or a TypeError.",
)
def own_exceptions(subject: Consumer) -> None:
    for error in (_OwnError, KeyboardInterrupt):
        try:
            subject.take(Raising(error))
        except error:
            continue
        except BaseException as other:
            raise Violation(
                f"a {error.__name__} of the producer's became {type(other).__name__}"
            ) from None
        raise Violation(f"it gave a result though the producer raised {error.__name__}")
    with refusal(
        AttributeError,
        TypeError,
        other="an object without the methods gave {0}",
        accepted="it took an object without the methods",
    ):
        subject.take(WithoutMethods())


@rule(25, "On the host no stream is passed, or None.")
def stream(subject: Consumer) -> None:
    producer = HandMade()
    subject.take(producer)
    for call in producer.calls:
        stream = call.get("stream")
        require(stream is None, f"it passed stream={stream!r} to a tensor on the host")
    _ended(producer)


@rule(26, "The result stays on the source's device.")
def stays_on_its_device(subject: Consumer) -> None:
    device = given(subject.device, "device()")
    producer = HandMade()
    result = subject.take(producer)
    found = device(result)
    require(int(found[0]) == 1, f"a tensor of the host became one on {tuple(found)}")
    del result
    _ended(producer)


@rule(27, "copy=False across devices is a BufferError, or a ValueError.")
def copy_false_across_devices(subject: Consumer) -> None:
    across = given(subject.across, "across()")
    producer = HandMade()
    with refusal(
        BufferError,
        ValueError,
        other="it gave {0}: {1}",
        accepted="it crossed to another device though copy=False was asked for",
    ):
        across(producer)
    _ended(producer)


def _chain(error: BaseException | None) -> str:
    """The texts of an exception and of what caused it."""
    texts = []
    while error is not None:
        texts.append(str(error))
        hidden = error.__suppress_context__ and error.__cause__ is None
        error = None if hidden else error.__cause__ or error.__context__
    return "\n".join(texts)
