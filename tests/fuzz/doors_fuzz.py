"""Fuzzes the doors of the Python module with producers that lie, by atheris (libFuzzer for Python).

    python tests/fuzz/doors_fuzz.py -max_total_time=60 [corpus]

Every input makes one object and crosses it a few times. Whatever it is, the answer is a tensor
that can be read, a refusal, a TypeError for what is no array, or the object's own exception;
afterwards every deleter has run once and no managed tensor is left. Coverage is that of dlbridge's
Python code, and of what the objects here do: the compiled part is not instrumented.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import atheris
import numpy as np
import torch

with atheris.instrument_imports(include=["dlbridge"]):
    import dlbridge
import dlbridge_probe as probe

TABLES = ["good", "no_borrow", "no_from_py", "nothing", "loud", "silent", "empty", "erring"]
TABLES += ["newer", "newer_alone", "older", "chain", "broken_chain", "circle"]
CODES = [0, 1, 2, 2, 2, 4, 5, 6, 10, 14, 17, 99]
SIZES = [-1, 0, 1, 2, 3, 2**62]
STRIDES = [0, 1, 2, -1, 3, 2**61, -(2**63)]
ROOM = 4096  # of bytes; what is neither refused nor overflowing reaches less than half of it


class Own(Exception):
    """What only the producer can have raised."""


class Choices(atheris.FuzzedDataProvider):
    def pick(self, items: Any) -> Any:
        return items[self.ConsumeIntInRange(0, len(items) - 1)]

    def one_in(self, many: int) -> bool:
        return self.ConsumeIntInRange(1, many) == many


@atheris.instrument_func
def recipe(choose: Choices) -> dict[str, Any]:
    """The fields of a capsule: mostly sound, everything possible."""
    ndim = choose.ConsumeIntInRange(0, 3)
    wild = choose.one_in(3)
    sizes, strides = (SIZES, STRIDES) if wild else (SIZES[1:5], STRIDES[:4])
    fields: dict[str, Any] = {
        "data": bytes(range(256)) * (ROOM // 256),
        "start": ROOM // 2,
        "shape": [choose.pick(sizes) for _ in range(ndim)],
        "strides": [choose.pick(strides) for _ in range(ndim)] if choose.ConsumeBool() else None,
        "dtype": (choose.pick(CODES), choose.pick([8, 16, 32, 64]), 1),
        "flags": choose.ConsumeIntInRange(0, 7),
    }
    if wild:
        fields |= {
            "ndim": choose.pick([ndim, ndim, ndim, -1, 65]),
            "dtype": (
                choose.pick(CODES),
                choose.pick([0, 1, 4, 6, 8, 16, 32, 64, 128]),
                choose.pick([1, 1, 0, 2]),
            ),
            "device": (choose.pick([1, 1, 1, 3, 2, 8, 0, 99]), choose.pick([0, 0, 1, -1])),
            "version": choose.pick([(1, 3), (1, 0), (1, 99), (2, 0), (0, 8)]),
            "byte_offset": choose.pick([0, 0, 4, 2**63]),
            "null_data": choose.one_in(5),
            "null_shape": choose.one_in(8),
        }
    return fields


class Liar:
    """Behaviour that every method of the class under test is made of."""

    def __init__(self, choose: Choices) -> None:
        self.choose = choose
        self.producers: list[Any] = []
        self.depth = 0
        self.kept: list[Any] = []

    @atheris.instrument_func
    def capsule(self) -> Any:
        if not self.producers or self.choose.one_in(4):
            self.producers.append(probe.Producer(**recipe(self.choose)))
        return self.producers[-1].capsule(versioned=self.choose.ConsumeBool())

    @atheris.instrument_func
    def answer(self, source: Any) -> Any:
        """What __dlpack__ returns this time."""
        kind = self.choose.ConsumeIntInRange(0, 9)
        if kind == 0:
            raise self.choose.pick([Own("mine"), TypeError("max_version? mine"), KeyError("mine")])
        if kind == 1:
            return self.choose.pick([None, 5, b"", source, type(source), [], np.ones(2)])
        if kind == 2:
            used = self.capsule()
            self.kept.append(probe.hold(used))
            return used
        if kind == 3 and self.depth < 3:
            self.depth += 1
            try:
                cross(self.choose, source, self)
            finally:
                self.depth -= 1
        if kind == 4:
            self.kept.clear()
            gc.collect(0)
        if kind == 5:
            alter(self.choose, type(source), self)
        return self.capsule()

    @atheris.instrument_func
    def device(self) -> Any:
        if self.choose.one_in(2):
            return (1, 0)
        if self.choose.one_in(4):
            raise Own("mine")
        return self.choose.pick(
            [(3, 0), (2, 0), (8, 1), None, 7, (1,), ("cpu", 0), (2**40, 0), (-1, -1), [1, 0]]
        )

    @atheris.instrument_func
    def interface(self) -> Any:
        if self.choose.one_in(8):
            raise Own("mine")
        described: dict[str, Any] = {
            "version": 3,
            "typestr": self.choose.pick(["<f4", ">f4", "|u1", "<i8", "|V3", "<c8", "f", "<f99"]),
            "shape": tuple(
                self.choose.pick(SIZES) for _ in range(self.choose.ConsumeIntInRange(0, 3))
            ),
            "data": self.choose.pick([bytearray(64), bytes(64), None, 5, (0, False), (0,)]),
        }
        if self.choose.ConsumeBool():
            described["strides"] = tuple(self.choose.pick(STRIDES) for _ in described["shape"])
        if self.choose.one_in(4):
            described["offset"] = self.choose.pick([0, 4, 63, 64, -1, 2**62, None, "x"])
        if self.choose.one_in(6):
            described["mask"] = True
        if self.choose.one_in(6):
            described.pop(self.choose.pick(list(described)))
        return self.choose.pick([described, described, described, None, 5])


@atheris.instrument_func
def dlpack_of(liar: Liar, choose: Choices) -> Callable[..., Any]:
    def with_all(self: Any, **keywords: Any) -> Any:
        return liar.answer(self)

    def with_version(self: Any, *, max_version: Any = None) -> Any:
        return liar.answer(self)

    def bare(self: Any) -> Any:
        return liar.answer(self)

    return choose.pick([with_all, with_all, with_version, bare])


@atheris.instrument_func
def space_of(liar: Liar, choose: Choices) -> dict[str, Any]:
    space: dict[str, Any] = {}
    if choose.ConsumeBool():
        space["__dlpack__"] = dlpack_of(liar, choose)
    if choose.ConsumeBool():
        space["__dlpack_device__"] = lambda self: liar.device()
    if choose.one_in(3):
        space["__array_interface__"] = property(lambda self: liar.interface())
    if choose.one_in(4):
        space["__dlpack_c_exchange_api__"] = probe.table_named(choose.pick(TABLES))
    if choose.one_in(6):
        space["__getattr__"] = lambda self, name: liar.answer(self)
    return space


@atheris.instrument_func
def alter(choose: Choices, kind: type, liar: Liar) -> None:
    """Changes the class after, or while, it is probed."""
    try:
        for name, value in space_of(liar, choose).items():
            setattr(kind, name, value)
        if choose.ConsumeBool() and "__dlpack__" in vars(kind):
            del kind.__dlpack__
    except (TypeError, AttributeError):
        pass  # another kind of class: it stays what it is


@atheris.instrument_func
def cross(choose: Choices, source: Any, liar: Liar) -> None:
    policy = choose.pick(["strict", "host", "zero_copy", "snapshot", None])
    copy = choose.pick([None, None, False, True])
    doors: list[Callable[[], Any]] = [
        lambda: dlbridge.to_numpy(source, policy=policy, copy=copy),
        lambda: dlbridge.to_torch(source, policy=policy, copy=copy),
        lambda: dlbridge.to_numpy(source, dtype=choose.pick(["float32", "int8", "complex64"])),
        lambda: dlbridge.from_dlpack(source, copy=copy),
        lambda: dlbridge.capsule(source, max_version=choose.pick([(1, 3), None]), policy=policy),
        lambda: dlbridge.explain(source, choose.pick(["numpy", "torch", "managed"])),
    ]
    view = choose.pick(doors)()
    if isinstance(view, torch.Tensor) and view.dtype is torch.float4_e2m1fn_x2:
        view = view.view(torch.uint8)  # torch 2.15 lists none of these
    if isinstance(view, (np.ndarray, torch.Tensor)):
        view.tolist()
    elif not isinstance(view, (dlbridge.ManagedTensor, dlbridge.Plan)):
        view = probe.hold(view)
    repr(view)
    if choose.ConsumeBool():
        liar.kept.append(view)


@atheris.instrument_func
def one_input(data: bytes) -> None:
    choose = Choices(data)
    liar = Liar(choose)
    base = probe.Producer if choose.one_in(3) else object
    kind = type("Made", (base,), space_of(liar, choose))
    source = kind(**recipe(choose)) if base is probe.Producer else kind()
    if base is probe.Producer:
        liar.producers.append(source)
    if choose.one_in(6):
        source = liar.capsule()
    for _ in range(choose.ConsumeIntInRange(1, 4)):
        try:
            cross(choose, source, liar)
        except (dlbridge.ConversionRefused, TypeError, MemoryError, Own):
            pass
        except (KeyError, LookupError, ValueError, AttributeError) as error:
            # Those of the producer, its table and its class; a name that is no target.
            known = ("mine", "the probe", "managed", "object has no attribute")
            if not any(word in str(error) for word in known):
                raise
    tokens = [producer.token for producer in liar.producers]
    del source, kind
    liar.kept.clear()
    liar.producers.clear()
    liar.__dict__.clear()
    gc.collect()
    dlbridge.from_dlpack(np.zeros(1))  # carries out what waits for the GIL
    assert dlbridge._core.live_managed_tensors() == 0, "managed tensors are left"
    for token in tokens:
        assert probe.deletes(token) == probe.exports(token), "a deleter did not run once"


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
