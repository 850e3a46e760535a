"""Rules 28 to 33: the C exchange table."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dlbridge.testing._hand_made import HandMade
from dlbridge.testing._rules import Kind, NotApplicable, Violation, enter, require
from dlbridge.testing._structures import (
    TABLE,
    VERSIONED,
    DLManagedTensorVersioned,
    DLPackExchangeAPI,
    call_deleter,
    capsule_is_valid,
    capsule_pointer,
    mark_used,
)

rule = functools.partial(enter, "exchange table")

ATTRIBUTE = "__dlpack_c_exchange_api__"

_SLOTS = (
    "managed_tensor_allocator",
    "managed_tensor_from_py_object_no_sync",
    "managed_tensor_to_py_object_no_sync",
    "current_work_stream",
)


@dataclass(frozen=True, kw_only=True)
class ExchangeTable:
    """A type with an exchange table; ``make()`` gives an object of it, on the host."""

    type: type
    make: Callable[[], Any]
    kind: ClassVar[Kind] = "exchange table"


def _table(subject: ExchangeTable) -> DLPackExchangeAPI:
    capsule = getattr(subject.type, ATTRIBUTE, None)
    if capsule is None:
        raise NotApplicable(f"{subject.type.__name__} has no {ATTRIBUTE}")
    require(
        capsule_is_valid(id(capsule), TABLE), f'{ATTRIBUTE} is no capsule called "{TABLE.decode()}"'
    )
    return DLPackExchangeAPI.from_address(capsule_pointer(id(capsule), TABLE))


def _called(
    function: Any, kinds: tuple[Any, ...], *arguments: Any, before: int | None = None
) -> tuple[int, int | None]:
    """The status and what was written over ``before``. A Python error is raised by ctypes."""
    out = ctypes.c_void_p(before)
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, *kinds, ctypes.POINTER(ctypes.c_void_p))
    return prototype(function)(*arguments, ctypes.byref(out)), out.value


def _from_python(table: DLPackExchangeAPI, x: Any) -> tuple[int, int | None]:
    return _called(table.managed_tensor_from_py_object_no_sync, (ctypes.py_object,), x)


def _to_python(table: DLPackExchangeAPI, producer: HandMade) -> tuple[int, int | None]:
    capsule = producer.capsule()
    address = capsule_pointer(id(capsule), VERSIONED)
    mark_used(capsule)
    return _called(table.managed_tensor_to_py_object_no_sync, (ctypes.c_void_p,), address)


@rule(28, "A type attribute holds it, in a capsule of its name, with its version and four slots.")
def table_is_complete(subject: ExchangeTable) -> None:
    table = _table(subject)
    require(table.version.major == 1, f"its version is {table.version.major}")
    for slot in _SLOTS:
        require(getattr(table, slot), f"{slot} is NULL")


@rule(29, "It is alive as long as the process.")
def table_is_static(subject: ExchangeTable) -> None:
    first = ctypes.addressof(_table(subject))
    gc.collect()
    second = ctypes.addressof(_table(subject))
    require(first == second, "two looks at it gave two tables")
    require(_table(subject).version.major == 1, "it changed")


@rule(30, "No C++ exception escapes: an object of another type gives -1 and a Python error.")
def nothing_escapes(subject: ExchangeTable) -> None:
    table = _table(subject)
    for other in (object(), None, 3):
        try:
            status, tensor = _from_python(table, other)
        except Exception:
            continue
        raise Violation(
            f"a {type(other).__name__} gave status {status}, tensor {tensor} and no Python error"
        )


@rule(31, "A Python error is set exactly when a call fails.")
def error_when_failed(subject: ExchangeTable) -> None:
    table = _table(subject)
    status, tensor = _from_python(table, subject.make())  # a stray error would be raised here
    require(status == 0 and tensor, f"its own object gave status {status}, tensor {tensor}")
    assert tensor is not None
    call_deleter(DLManagedTensorVersioned.from_address(tensor))
    try:
        status, tensor = _from_python(table, object())
    except Exception:
        return
    raise Violation(f"it failed with status {status} without a Python error")


@rule(32, "to_py_object takes its tensor exactly once.")
def tensor_is_taken_once(subject: ExchangeTable) -> None:
    table = _table(subject)
    producer = HandMade()
    status, out = _to_python(table, producer)
    require(status == 0 and out, f"a plain tensor gave status {status}")
    assert out is not None
    require(producer.deleted == 0, "the tensor was released while the object over it lives")
    result = ctypes.cast(out, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(result))  # the reference that was given
    del result
    producer.forget_capsules()
    gc.collect()
    require(producer.deleted == 1, f"its deleter was called {producer.deleted} times in the end")
    bad = HandMade(dtype=(99, 32, 1))
    try:
        _to_python(table, bad)
    except Exception:
        require(bad.deleted <= 1, f"a refused tensor was released {bad.deleted} times")
        bad.release()  # where it was left with its caller


@rule(33, "current_work_stream is the library's current stream: NULL on the host.")
def current_stream(subject: ExchangeTable) -> None:
    device = (ctypes.c_int32, ctypes.c_int32)
    function = _table(subject).current_work_stream
    status, stream = _called(function, device, 1, 0, before=0xDEAD)
    require(status == 0, f"it gave status {status} for the host")
    require(not stream, "it wrote no NULL for the host")
