"""The conformance kit: on ourselves, on NumPy and torch, and on subjects that break each rule."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge
from dlbridge import testing
from dlbridge.testing import _hand_made, _structures
from dlbridge.testing._structures import LEGACY, READ_ONLY, VERSIONED

F4 = np.arange(6, dtype="f4")


def float4_of_torch() -> torch.Tensor:
    return torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


def ours(array: Any) -> dlbridge.ManagedTensor:
    return dlbridge.from_dlpack(array)


NUMPY = testing.Producer(
    make=F4.copy,
    address=lambda x: x.ctypes.data,
    empty=lambda: np.zeros((0, 3), "f4"),
    swapped=lambda: F4.astype(">f4"),
    inexpressible=lambda: np.zeros(3, "M8[s]"),
)
TORCH = testing.Producer(
    make=lambda: torch.arange(6.0),
    address=lambda x: x.data_ptr(),
    empty=lambda: torch.zeros(0, 3),
    float4=float4_of_torch,
    inexpressible=lambda: torch.eye(3).to_sparse(),
)
OURS = testing.Producer(
    make=lambda: ours(F4.copy()),
    address=lambda x: x.data_ptr,
    empty=lambda: ours(np.zeros((0, 3), "f4")),
    float4=lambda: ours(float4_of_torch()),
)


def consumer(take: Callable[[Any], Any], **fields: Any) -> testing.Consumer:
    return testing.Consumer(
        take=take,
        values=lambda x: dlbridge.to_numpy(x).tolist(),
        write=lambda x: x.__setitem__(..., 9) if hasattr(x, "__setitem__") else None,
        **fields,
    )


def broken(subject: Any) -> dict[str, str]:
    found = testing.run(subject)
    assert found
    return {str(each.rule): each.reason for each in found if each.outcome == "broken"}


def test_all_33_rules_are_there() -> None:
    assert {each.number for each in testing.RULES} == set(range(1, 34))
    assert len({str(each) for each in testing.RULES}) == len(testing.RULES)
    assert all(each.text.endswith(".") for each in testing.RULES)
    assert testing.rule_named("byte-offset").number == 20


# --- on ourselves and our neighbours: what is known of their releases ----------------------------


@pytest.mark.parametrize("rule", testing.rules("producer"), ids=str)
def test_our_producer_keeps_every_rule(rule: testing.Rule) -> None:
    rule.check(OURS)


@pytest.mark.parametrize("rule", testing.rules("consumer"), ids=str)
def test_our_consumer_keeps_every_rule(rule: testing.Rule) -> None:
    rule.check(
        consumer(
            dlbridge.from_dlpack,
            device=lambda x: x.device,
            across=lambda x: dlbridge.from_dlpack(x, device="cuda:0", copy=False),
        )
    )


@pytest.mark.parametrize("rule", testing.rules("consumer"), ids=str)
def test_to_numpy_keeps_every_rule(rule: testing.Rule) -> None:
    rule.check(consumer(dlbridge.to_numpy, device=lambda x: x.__dlpack_device__()))


@pytest.mark.parametrize("rule", testing.rules("consumer"), ids=str)
def test_to_torch_keeps_every_rule(rule: testing.Rule, road: str) -> None:
    rule.check(consumer(dlbridge.to_torch, device=lambda x: x.__dlpack_device__()))


@pytest.mark.parametrize("rule", testing.rules("exchange table"), ids=str)
def test_our_exchange_table_keeps_every_rule(rule: testing.Rule) -> None:
    rule.check(testing.ExchangeTable(type=dlbridge.ManagedTensor, make=lambda: ours(F4.copy())))


def test_what_is_known_of_numpy() -> None:
    assert set(broken(NUMPY)) == {"05-empty-is-null"}
    assert not broken(consumer(np.from_dlpack))


def test_what_is_known_of_torch() -> None:
    assert set(broken(TORCH)) == {"08-copy-keyword"}
    assert set(broken(consumer(torch.from_dlpack))) == {"23-read-only", "24-own-exceptions"}
    assert not broken(testing.ExchangeTable(type=torch.Tensor, make=lambda: torch.arange(6.0)))


# --- on broken producers -------------------------------------------------------------------------


class WrongName(_hand_made.HandMade):
    def capsule(self, versioned: bool = True) -> Any:
        return _structures.new_capsule(ctypes.addressof(self._memory), b"tensor", None)


class ForgetsItsDeleter(_hand_made.HandMade):
    def capsule(self, versioned: bool = True) -> Any:
        capsule = super().capsule(versioned)
        address = _structures.capsule_pointer(id(capsule), LEGACY if not versioned else VERSIONED)
        self.capsules.clear()
        self.held = capsule
        return _structures.new_capsule(address, VERSIONED if versioned else LEGACY, None)


class ClearsItsMemory(_hand_made.HandMade):
    def __del__(self) -> None:
        ctypes.memset(self.address, 0x77, 24)


class OtherMemoryEachTime(_hand_made.HandMade):
    def __dlpack__(self, **keywords: Any) -> Any:
        self.held = [*getattr(self, "held", []), testing.HandMade()]
        return self.held[-1].__dlpack__(**keywords)


class NoDeviceId(_hand_made.HandMade):
    def __dlpack_device__(self) -> Any:
        return 1, None


def made(kind: type[testing.HandMade] = testing.HandMade, **fields: Any) -> Any:
    return lambda: kind(**fields)


# Rule by rule: a producer that breaks it.
BROKEN_PRODUCERS: dict[str, testing.Producer] = {
    "capsule-lifetime": testing.Producer(make=made(ForgetsItsDeleter), live=lambda: 1),
    "legacy-without-max-version": testing.Producer(make=made(answers=False)),
    "newest-of-the-major-version": testing.Producer(make=made(versioned=False)),
    "strides-are-filled": testing.Producer(make=made(strides=None)),
    "empty-is-null": testing.Producer(make=made(), empty=made(shape=(0,))),
    "native-byte-order": testing.Producer(make=made(), swapped=made()),
    "packed-float4": testing.Producer(make=made(), float4=made(dtype=(17, 8, 1))),
    "copy-keyword": testing.Producer(make=made()),
    "unknown-device": testing.Producer(make=made()),
    "stream-of-the-host": testing.Producer(make=made()),
    "deleter-anywhere": testing.Producer(make=made(ClearsItsMemory)),
    "zero-copy": testing.Producer(make=made(OtherMemoryEachTime)),
    "buffer-error": testing.Producer(
        make=made(), inexpressible=lambda: _hand_made.Raising(RuntimeError)
    ),
    "device-of-the-host": testing.Producer(make=made(NoDeviceId)),
}


@pytest.mark.leaves_behind
@pytest.mark.parametrize("rule", testing.rules("producer"), ids=str)
def test_a_broken_producer_is_caught(rule: testing.Rule) -> None:
    with pytest.raises(testing.Violation):
        rule.check(BROKEN_PRODUCERS[rule.name])


def test_a_capsule_of_another_name_is_caught() -> None:
    with pytest.raises(testing.Violation, match="'tensor'"):
        testing.rule_named("capsule-lifetime").check(testing.Producer(make=made(WrongName)))
    wrong_id = testing.Producer(make=made(device=(1, 3)))
    with pytest.raises(testing.Violation, match="device_id 3"):
        testing.rule_named("device-of-the-host").check(wrong_id)


# --- on broken consumers -------------------------------------------------------------------------


class SmallConsumer:
    """A consumer of 4-byte floats that keeps every rule but the one that it is told to break."""

    def __init__(self, breaks: str = "") -> None:
        self.breaks = breaks

    def take(self, producer: Any) -> Any:
        try:
            return self._take(producer)
        except Exception as error:
            if self.breaks == "own-exceptions":
                raise RuntimeError("something went wrong") from None
            if self.breaks == "type-error-is-read" and isinstance(error, TypeError):
                raise TypeError("this is no tensor") from None
            raise

    def _take(self, producer: Any) -> Any:
        stream = 2 if self.breaks == "stream" else None
        capsule = producer.__dlpack__(max_version=(1, 3), stream=stream)
        name = _structures.capsule_name(capsule)
        if name.startswith(b"used_") and self.breaks != "capsule-is-used-up":
            raise BufferError("used already")
        if self.breaks == "capsule-is-used-up" and name.startswith(b"used_"):
            return Taken(None, [0.0] * 6)
        managed = _structures.managed_in(capsule)
        tensor = managed.dl_tensor
        versioned = name == VERSIONED
        self.check(managed, tensor, versioned)
        values = self.read(tensor)
        if self.breaks != "capsule-is-used-up":
            _structures.mark_used(capsule)
        taken = Taken(managed, values)
        taken.twice = self.breaks == "deleter-exactly-once"
        taken.requires_deleter = self.breaks == "null-deleter"
        if taken.requires_deleter and not managed.deleter:
            raise BufferError("no deleter")
        return taken

    def check(self, managed: Any, tensor: Any, versioned: bool) -> None:
        major = managed.version.major if versioned else 1
        minor = managed.version.minor if versioned else 0
        if major != 1 and self.breaks != "other-major-version":
            raise BufferError("another major version")
        if minor > 3 and self.breaks == "newer-minor-version":
            raise BufferError("another minor version")
        dtype = (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes)
        allowed = [(2, 32, 1)]
        if self.breaks == "bits-of-float4":
            allowed.append((17, 8, 1))
        if self.breaks == "padded-float4":
            allowed.append((17, 4, 1))
        if dtype not in allowed or tensor.device.device_type != 1:
            raise BufferError("another type or device")

    def read(self, tensor: Any) -> Any:
        shape = list(tensor.shape[: tensor.ndim])
        if math.prod(shape) == 0 or tensor.dtype.code != 2:
            return []
        offset = 0 if self.breaks == "byte-offset" else tensor.byte_offset
        strides: list[int] = list(tensor.strides[: tensor.ndim]) if tensor.strides else []
        if not strides or self.breaks == "strides":
            strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
            if not tensor.strides and self.breaks == "null-strides":
                strides.reverse()

        def nested(dimension: int, at: int) -> Any:
            if dimension == len(shape):
                return ctypes.c_float.from_address(tensor.data + offset + 4 * at).value
            return [
                nested(dimension + 1, at + i * strides[dimension]) for i in range(shape[dimension])
            ]

        return nested(0, 0)

    def write(self, taken: Any) -> None:
        managed = taken.managed
        if self.breaks == "read-only" or not managed.flags & READ_ONLY:
            ctypes.memset(managed.dl_tensor.data, 0x77, 24)

    def subject(self) -> testing.Consumer:
        wrong_device = self.breaks == "stays-on-its-device"
        return testing.Consumer(
            take=self.take,
            values=lambda taken: taken.values,
            write=self.write,
            device=lambda taken: (2, 0) if wrong_device else (1, 0),
            across=self.take if self.breaks == "copy-false-across-devices" else self.no_device,
        )

    @staticmethod
    def no_device(producer: Any) -> Any:
        raise BufferError("there is one device")


class Taken:
    twice = False
    requires_deleter = False

    def __init__(self, managed: Any, values: Any) -> None:
        self.managed = managed
        self.values = values

    def __del__(self) -> None:
        if self.managed is not None:
            _structures.call_deleter(self.managed)
            if self.twice:
                _structures.call_deleter(self.managed)


def test_the_small_consumer_keeps_every_rule() -> None:
    assert broken(SmallConsumer().subject()) == {}


@pytest.mark.parametrize("rule", testing.rules("consumer"), ids=str)
def test_a_broken_consumer_is_caught(rule: testing.Rule) -> None:
    with pytest.raises((testing.Violation, BufferError)):
        rule.check(SmallConsumer(rule.name).subject())


# --- on broken exchange tables -------------------------------------------------------------------


def with_table(**changes: Any) -> testing.ExchangeTable:
    """A copy of our own table with some slots changed."""
    capsule = dlbridge.ManagedTensor.__dlpack_c_exchange_api__
    address = _structures.capsule_pointer(id(capsule), _structures.TABLE)
    table = _structures.DLPackExchangeAPI()
    ctypes.memmove(ctypes.addressof(table), address, ctypes.sizeof(table))
    for name, value in changes.items():
        if name == "version":
            table.version.major = value
        else:
            setattr(table, name, ctypes.cast(value, ctypes.c_void_p).value if value else None)
    made = _structures.new_capsule(ctypes.addressof(table), _structures.TABLE, None)
    kind = type("Kind", (), {"__dlpack_c_exchange_api__": made, "table": (table, changes)})
    return testing.ExchangeTable(type=kind, make=lambda: ours(F4.copy()))


Function = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
Stream = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)
)


class ChangingTable(type):
    """A type whose attribute is another table each time."""

    kept: list[Any] = []  # noqa: RUF012 all of them share it

    @property
    def __dlpack_c_exchange_api__(cls) -> Any:
        subject = with_table()
        cls.kept.append(subject)
        return subject.type.__dlpack_c_exchange_api__  # type: ignore[attr-defined]


def takes_and_leaves(address: int, out: Any) -> int:
    """Gives an object, and never releases the tensor."""
    thing = object()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    out[0] = id(thing)
    return 0


BROKEN_TABLES: dict[str, Callable[[], testing.ExchangeTable]] = {
    "table-is-complete": lambda: with_table(managed_tensor_allocator=None),
    "table-is-static": lambda: testing.ExchangeTable(
        type=ChangingTable("Changing", (), {}), make=object
    ),
    "nothing-escapes": lambda: with_table(
        managed_tensor_from_py_object_no_sync=Function(lambda x, out: 0)
    ),
    "error-when-failed": lambda: with_table(
        managed_tensor_from_py_object_no_sync=Function(lambda x, out: -1)
    ),
    "tensor-is-taken-once": lambda: with_table(
        managed_tensor_to_py_object_no_sync=Function(takes_and_leaves)
    ),
    "current-stream": lambda: with_table(current_work_stream=Stream(lambda kind, id, out: 0)),
}


@pytest.mark.leaves_behind
@pytest.mark.parametrize("rule", testing.rules("exchange table"), ids=str)
def test_a_broken_table_is_caught(rule: testing.Rule) -> None:
    with pytest.raises(testing.Violation):
        rule.check(BROKEN_TABLES[rule.name]())


def test_a_type_without_a_table_is_not_asked() -> None:
    found = testing.run(testing.ExchangeTable(type=int, make=int))
    assert {each.outcome for each in found} == {"not applicable"}


# --- the tensors made by hand --------------------------------------------------------------------


def test_padded_float4_is_not_read_as_packed() -> None:
    producer = testing.HandMade(dtype=(17, 4, 1), data=bytes(range(6)), flags=4)
    tensor = dlbridge.from_dlpack(producer)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.from_dlpack(tensor, copy=True)
    with pytest.raises(dlbridge.ConversionRefused):
        tensor.__dlpack__(max_version=(1, 3), copy=True)
    with pytest.raises(dlbridge.ConversionRefused):
        tensor.__dlpack__()
    with pytest.raises(dlbridge.ConversionRefused, match="padded"):
        dlbridge.to_torch(tensor)


def test_a_hand_made_tensor_counts_its_deleters() -> None:
    producer = testing.HandMade()
    array = dlbridge.to_numpy(producer)
    assert (producer.made, producer.deleted) == (1, 0)
    del array
    assert producer.deleted == 1
    producer.capsule()
    producer.forget_capsules()
    assert (producer.made, producer.deleted) == (2, 2)
