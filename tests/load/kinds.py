"""The kinds of small crossings that the load test repeats: every door, in and out, and refusals."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import dlbridge_probe
import numpy as np
import torch

import dlbridge


@dataclass(frozen=True)
class Kind:
    """One kind of crossing. ``share`` is how often it is made, against the others."""

    name: str
    convert: Callable[[Any], Any]
    sources: Callable[[int], Iterable[Any]]
    share: int
    road: str | None

    def run(self, count: int) -> None:
        """Crosses ``count`` times, in a loop of C's."""
        if self.road is not None:
            dlbridge._core.torch_road(self.road)
        deque(map(self.convert, self.sources(count)), maxlen=0)


def the_same(source: Any) -> Callable[[int], Iterable[Any]]:
    return partial(itertools.repeat, source)


def new(make: Callable[[], Any]) -> Callable[[int], Iterable[Any]]:
    """A source of its own for each crossing."""
    return lambda count: itertools.starmap(make, itertools.repeat((), count))


def refused(
    convert: Callable[[Any], Any], error: type[BaseException] = dlbridge.ConversionRefused
) -> Callable[[Any], None]:
    def attempt(source: Any) -> None:
        try:
            convert(source)
        except error:
            return
        raise AssertionError(f"{convert} took a {type(source).__name__}")

    return attempt


class Interface:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # it owns the memory that the interface names
        self.__array_interface__ = array.__array_interface__


class LegacyProducer:
    """As producers were before DLPack 1.0."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class OwnError(Exception):
    pass


class RaisingProducer(LegacyProducer):
    def __dlpack__(self, stream: Any = None) -> Any:
        raise OwnError


class LyingProducer(LegacyProducer):
    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def used_capsule() -> Any:
    capsule = dlbridge.capsule(np.ones(3))
    dlbridge.from_dlpack(capsule)
    return capsule


def on_another_thread(source: Any) -> None:
    dlbridge_probe.hold(dlbridge.capsule(source)).release_on_thread()


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def of_torch(road: str) -> Iterator[Kind]:
    """What differs by the road to torch."""
    tensor, array = torch.ones(4, 8), np.ones((4, 8), "f4")
    pending = torch.ones(4, dtype=torch.complex64).conj()
    in_graph = torch.ones(4, 8, requires_grad=True)
    managed = dlbridge.from_dlpack(array)
    numpy_of, torch_of = dlbridge.to_numpy, dlbridge.to_torch
    rows: list[tuple[str, Callable[[Any], Any], Callable[[int], Iterable[Any]], int]] = [
        ("to_numpy(t)", numpy_of, the_same(tensor), 20),
        ("to_numpy(new t)", numpy_of, new(partial(torch.zeros, 3)), 4),
        ("to_numpy(t.T)", numpy_of, the_same(torch.ones(4, 8).T), 20),
        ("to_numpy(in a graph)", numpy_of, the_same(in_graph), 20),
        ("to_numpy(bfloat16)", numpy_of, the_same(tensor.bfloat16()), 10),
        ("to_numpy(conj bit), a copy", numpy_of, the_same(pending), 10),
        ("to_numpy(t, copy=True)", partial(numpy_of, copy=True), the_same(tensor), 10),
        (
            "to_numpy(capsule(t))",
            numpy_of,
            lambda n: map(dlbridge.capsule, the_same(tensor)(n)),
            10,
        ),
        ("from_dlpack(t)", dlbridge.from_dlpack, the_same(tensor), 20),
        ("capsule(t)", dlbridge.capsule, the_same(tensor), 20),
        ("capsule(t), legacy", partial(dlbridge.capsule, max_version=None), the_same(tensor), 10),
        ("to_torch(a)", torch_of, the_same(array), 20),
        ("to_torch(new a)", torch_of, new(partial(np.zeros, 3)), 10),
        ("to_torch(m)", torch_of, the_same(managed), 20),
        ("to_torch(bytes), a copy", torch_of, the_same(b"abc"), 10),
        ("to_torch(read-only), a copy", torch_of, the_same(read_only(array.copy())), 10),
        ("to_torch(a[::-1]), a copy", torch_of, the_same(array[::-1]), 10),
        ("to_torch(capsule(a))", torch_of, lambda n: map(dlbridge.capsule, the_same(array)(n)), 10),
        ("to(t, 'numpy')", lambda x: dlbridge.to(x, "numpy"), the_same(tensor), 4),
        ("explain(t, 'numpy')", lambda x: dlbridge.explain(x, "numpy"), the_same(tensor), 4),
        ("refusal: copy=False", refused(partial(numpy_of, copy=False)), the_same(pending), 2),
        ("refusal: strict", refused(partial(numpy_of, policy="strict")), the_same(in_graph), 2),
        ("refusal: meta", refused(numpy_of), the_same(torch.ones(3, device="meta")), 2),
        ("refusal: sparse", refused(dlbridge.capsule), the_same(torch.eye(3).to_sparse()), 2),
        ("refusal: masked", refused(torch_of), the_same(np.ma.masked_array([1.0], [True])), 2),
    ]
    for name, convert, sources, share in rows:
        yield Kind(f"{road}: {name}", convert, sources, share, road)


def of_others() -> Iterator[Kind]:
    array = np.ones((4, 8), "f4")
    managed = dlbridge.from_dlpack(array)
    numpy_of, from_dlpack = dlbridge.to_numpy, dlbridge.from_dlpack
    tree = {"a": managed, "b": [managed, (managed,)]}
    rows: list[tuple[str, Callable[[Any], Any], Callable[[int], Iterable[Any]], int]] = [
        ("to_numpy(m)", numpy_of, the_same(managed), 20),
        ("np.from_dlpack(m)", np.from_dlpack, the_same(managed), 20),
        ("torch.from_dlpack(m)", torch.from_dlpack, the_same(managed), 4),
        ("memoryview(m)", memoryview, the_same(managed), 20),
        ("from_dlpack(a)", from_dlpack, the_same(array), 20),
        ("from_dlpack(a, copy=True)", partial(from_dlpack, copy=True), the_same(array), 10),
        ("to_numpy(bytearray)", numpy_of, the_same(bytearray(24)), 20),
        ("to_numpy(interface)", numpy_of, the_same(Interface(array)), 4),
        ("to_numpy(legacy producer)", numpy_of, the_same(LegacyProducer(array)), 4),
        ("to_numpy(tree)", numpy_of, the_same(tree), 4),
        ("released without the GIL", on_another_thread, the_same(array), 1),
        ("refusal: own error", refused(from_dlpack, OwnError), the_same(RaisingProducer(array)), 2),
        ("refusal: lying device", refused(from_dlpack), the_same(LyingProducer(array)), 2),
        ("refusal: used capsule", refused(from_dlpack), the_same(used_capsule()), 2),
        ("refusal: no array", refused(from_dlpack, TypeError), the_same(object()), 2),
        (
            "refusal: bad keyword",
            refused(partial(numpy_of, copy=2), ValueError),
            the_same(array),
            2,
        ),
    ]
    for name, convert, sources, share in rows:
        yield Kind(name, convert, sources, share, None)


def kinds() -> list[Kind]:
    """Every kind, on every road to torch that there is."""
    found = list(of_others())
    for road in ("linked", "portable"):
        with contextlib.suppress(RuntimeError):  # there may be no companion for this torch
            dlbridge._core.torch_road(road)
            found += of_torch(road)
    return found
