"""An object is of its base's library; what a subclass means beside its values counts."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge


class Quantity(np.ndarray):  # type: ignore[type-arg]
    """As astropy's: the unit is a property of the class."""

    _unit: Any = "m"

    def __array_finalize__(self, made_of: Any) -> None:
        self._unit = getattr(made_of, "_unit", "m")

    @property
    def unit(self) -> Any:
        return self._unit

    @property
    def value(self) -> np.ndarray:  # type: ignore[type-arg]
        return self.view(np.ndarray)


class UnitArray(np.ndarray):  # type: ignore[type-arg]
    """As unyt's: the units are the array's own attribute."""

    def __array_finalize__(self, made_of: Any) -> None:
        self.units = getattr(made_of, "units", "s")

    @property
    def value(self) -> np.ndarray:  # type: ignore[type-arg]
        return self.view(np.ndarray)


class Tagged(np.ndarray):  # type: ignore[type-arg]
    """Has an attribute, as most subclasses have, which is none of its values."""

    def __array_finalize__(self, made_of: Any) -> None:
        self.info = getattr(made_of, "info", "tag")


class Unitless(Quantity):
    def __array_finalize__(self, made_of: Any) -> None:
        self._unit = None


def walks() -> dict[str, Callable[[Any], Any]]:
    return {
        "to_torch": dlbridge.to_torch,
        "to_numpy": dlbridge.to_numpy,
        "to": lambda x: dlbridge.to(x, "dlbridge"),
        "from_dlpack": dlbridge.from_dlpack,
        "capsule": dlbridge.capsule,
        "in a tree": lambda x: dlbridge.to_torch({"a": np.ones(1), "b": x}),
        "accepts": dlbridge.accepts("torch")(lambda x: x),
        "as_namespace": lambda x: dlbridge.as_namespace("torch", x),
        "borrow": lambda x: dlbridge.borrow(x).__enter__(),
    }


@pytest.mark.parametrize("walk", walks())
@pytest.mark.parametrize("kind", [Quantity, UnitArray])
def test_an_array_with_a_unit_is_refused_with_the_fix(kind: Any, walk: str) -> None:
    x = np.arange(6.0).view(kind)
    for given in (x, x[::2], x.reshape(2, 3), x.view(type("Mine", (kind,), {}))):
        with pytest.raises(dlbridge.ConversionRefused, match="unit") as caught:
            walks()[walk](given)
        assert ".value" in (caught.value.fix or "")
    assert dlbridge.to_torch(x.value).tolist() == list(range(6))
    for policy in ("host", "strict", "zero_copy", "snapshot"):
        assert dlbridge.explain(x, "torch", policy=policy).refused


@pytest.mark.parametrize("kind", [Tagged, Unitless, np.matrix, np.memmap, np.recarray])
def test_other_subclasses_are_plain(kind: Any) -> None:
    x = np.arange(6.0).view(kind)
    assert dlbridge.to_torch(x).data_ptr() == x.ctypes.data
    assert dlbridge.to_numpy(x) is x


def test_fields_called_unit_are_no_unit() -> None:
    records = np.rec.array([(1.0, 2.0)], dtype=[("unit", "f8"), ("units", "f8")])
    assert dlbridge.to_numpy([records, np.ones(1)])[0] is records
    assert dlbridge.to_torch(records["unit"]).tolist() == [1.0]


class Image(torch.Tensor):
    pass


class Letters(array.array):  # type: ignore[type-arg]
    pass


class Pixels:
    """As Pillow's images: it speaks the array interface, and its library is registered."""

    __module__ = "library_of_pixels.core"

    def __init__(self) -> None:
        self._array = np.arange(3, dtype="f4")

    @property
    def __array_interface__(self) -> Any:
        return self._array.__array_interface__


class Speaking:
    """Speaks DLPack, and its library is registered."""

    __module__ = "library_of_speakers"

    def __dlpack__(self, **keywords: Any) -> Any:
        return np.ones(3, "f4").__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


for library in ("library_of_pixels", "library_of_speakers"):
    dlbridge.register(
        dlbridge.Library(
            name=library,
            capabilities=dlbridge.Capabilities(result=library, read_only="honours"),
            take=lambda managed: np.asarray(managed),
        )
    )


class MyPixels(Pixels):
    pass


class MySpeaking(Speaking):
    pass


OF_THEIR_BASE: dict[str, tuple[Callable[[], Any], str]] = {
    "torch.Tensor": (lambda: torch.ones(3).as_subclass(Image), "torch"),
    "torch.nn.Parameter": (lambda: torch.nn.Parameter(torch.ones(3)), "torch"),
    "numpy.ndarray": (lambda: np.ones(3).view(Tagged), "numpy"),
    "by the array interface": (MyPixels, "library_of_pixels"),
    "by DLPack": (MySpeaking, "library_of_speakers"),
    "by the buffer protocol": (lambda: Letters("f", [1, 2]), "array"),
}


@pytest.mark.parametrize("name", OF_THEIR_BASE)
def test_an_object_of_a_class_of_ones_own_is_of_its_bases_library(name: str) -> None:
    make, library = OF_THEIR_BASE[name]
    x = make()
    assert dlbridge._core.library_of(x) == library
    assert dlbridge.to(x, library) is x
    assert dlbridge.explain(x, library).steps == ()


@pytest.mark.parametrize("name", [n for n in OF_THEIR_BASE if n != "by the buffer protocol"])
def test_answers_come_back_to_the_library_of_the_base(name: str) -> None:
    make, library = OF_THEIR_BASE[name]
    other = "numpy" if library == "torch" else "torch"
    answer = dlbridge.accepts(other)(lambda x: x + 1)(make())
    assert dlbridge._core.library_of(answer) in (library, "numpy")
    assert isinstance(answer, torch.Tensor) == (library == "torch")
    like = dlbridge.returns_like({"x": make()})
    assert isinstance(like(np.ones(1)), torch.Tensor if library == "torch" else np.ndarray)


class Unknown:
    """Speaks DLPack, and nobody knows its library."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return np.ones(3, "f4").__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_answers_stay_where_the_callers_library_takes_no_arrays() -> None:
    assert isinstance(dlbridge.accepts("torch")(lambda x: x + 1)(Unknown()), torch.Tensor)
    both = dlbridge.accepts("torch")(lambda x, y: x + y)
    assert isinstance(both(Unknown(), np.ones(3)), np.ndarray)
    with pytest.raises(TypeError, match=r"Unknown; dlbridge\.register"):
        dlbridge.returns_like(Unknown())
