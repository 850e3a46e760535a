"""Every refusal that there is: what it says to do, done as written, gives the same values."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy_sources
import pytest
import torch
import torch_sources
from dlb_support import ROADS

import dlbridge


class Crate:
    """Of a library that can take little."""

    def __init__(self, cells: np.ndarray) -> None:
        self.cells = cells


Crate.__module__ = "crates_for_fixes.core"
CRATES = dlbridge.Library(
    name="crates_for_fixes",
    object="crate",
    read=lambda crate: crate.cells,
    take=lambda managed: Crate(dlbridge.to_numpy(managed)),
    capabilities=dlbridge.Capabilities(
        result="crate",
        dtypes=("int32", "uint8", "float32", "complex64"),
        strides="compact",
        read_only="unaware",
        min_dimensions=1,
        max_dimensions=8,
    ),
)


@pytest.fixture(autouse=True)
def crates() -> Iterator[None]:
    dlbridge.register(CRATES)
    with warnings.catch_warnings():
        # Casts of NaN to integers, torch's prototypes, complex32.
        warnings.simplefilter("ignore")
        yield


DOORS: dict[str, Callable[..., Any]] = {
    "numpy": dlbridge.to_numpy,
    "torch": dlbridge.to_torch,
    "crates": lambda x, **how: dlbridge.to(x, "crates_for_fixes", **how).cells,
    "capsule": dlbridge.capsule,
    "legacy capsule": lambda x, max_version=None, **how: dlbridge.capsule(
        x, max_version=max_version, **how
    ),
    "from_dlpack": dlbridge.from_dlpack,
}
CALLS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "strict": {"policy": "strict"},
    "zero_copy": {"policy": "zero_copy"},
    "snapshot": {"policy": "snapshot"},
    "copy=False": {"copy": False},
    "strict, copy=False": {"policy": "strict", "copy": False},
    "C order": {"order": "C"},
    "C order, copy=False": {"order": "C", "copy": False},
    "C order in strict": {"order": "C", "policy": "strict"},
    "writable": {"writable": True},
    "writable, copy=False": {"writable": True, "copy": False},
    "writable in strict": {"writable": True, "policy": "strict"},
    "both, copy=False": {"order": "C", "writable": True, "copy": False},
    "cast": {"dtype": "complex64"},
    "cast in zero_copy": {"dtype": "complex64", "policy": "zero_copy"},
    "cast, copy=False": {"dtype": "complex64", "copy": False},
    **{
        f"{field}=refuse": {"policy": dlbridge.host.replace(**{field: "refuse"})}
        for field in ("grad", "bits", "device", "dtype", "readonly", "overlap")
    },
}
KNOWN = {  # what the doors take
    "numpy": {"policy", "dtype", "copy", "order", "writable"},
    "torch": {"policy", "dtype", "copy", "order"},
    "crates": {"policy", "dtype", "copy", "order", "writable"},
    "capsule": {"policy"},
    "legacy capsule": {"policy"},
    "from_dlpack": {"copy"},
}


# --- the sources, with what they mean -----------------------------------------------------------
def plain(x: Any) -> np.ndarray:
    """The values, by their own library's means."""
    if isinstance(x, torch.Tensor):
        x = x if x.layout is torch.strided else x.to_dense()
        x = x.detach().resolve_conj().resolve_neg()
        if x.dtype == torch.complex32:
            x = x.to(torch.complex64)
        elif x.dtype.is_floating_point and x.dtype not in (torch.float32, torch.float64):
            x = x.to(torch.float32)
        return np.array(x.tolist()).reshape(tuple(x.shape))
    if isinstance(x, np.ndarray):
        return x
    return plain(dlbridge.to_numpy(x))


# Sources whose values are not those of the array that lies beside them.
MEANINGS: dict[str, Callable[[Any], Any]] = {
    "torch quantised": lambda x: x.dequantize(),
    "torch quantised per channel": lambda x: x.dequantize(),
    "torch nested strided": lambda x: torch.nested.to_padded_tensor(x, 0.0),
    "torch nested jagged": lambda x: torch.nested.to_padded_tensor(x, 0.0),
    "torch functionalised": lambda x: torch_sources.VALUES,
    "torch subclass with __torch_dispatch__": lambda x: torch_sources.VALUES,
    "torch complex32": lambda x: x.to(torch.complex64),
    "torch 65 dims": lambda x: np.ones(1),
    "torch float4 pairs": lambda x: x.view(torch.uint8),
    "numpy masked": lambda x: x.filled(),
    "numpy masked, nothing masked": lambda x: x.filled(),
    "numpy object": lambda x: np.array([1.0, 2.5]),
    "numpy datetime64": lambda x: x.view("i8"),
    "numpy datetime64, byte-swapped": lambda x: x.astype("i8"),
    "numpy timedelta64": lambda x: x.view("i8"),
    "numpy bytes": lambda x: np.array([0, 1]),
    "numpy str": lambda x: np.array([0, 1]),
    "numpy StringDType": lambda x: np.array([0, 1]),
    "numpy structured": lambda x: x["x"],
    "numpy recarray": lambda x: x["x"],
}
# What is told in words: no call on the object itself helps.
WORDS = ("the call outside the transform", "a forward pass of its module", "materialize(shape)")
# Sources without a fix, at some door, and why.
WITHOUT_FIX = {
    "torch meta": "it has a shape but no values",
    "torch fake": "it has a shape but no values",
    "torch fake inside its mode": "it has a shape but no values",
    "torch wrapper subclass": "its values are in other tensors",
    "torch freed storage": "there is no memory to read",
    "torch storage cut short": "there is no memory to read",
    "torch 65 dims": "dimensions",
    "torch vmap wrapper, escaped": "exists only inside the transform",
    "torch grad wrapper, escaped": "exists only inside the transform",
    **{
        f"torch {name}": "padded to whole bytes"
        for name in ("int1", "int4", "int7", "uint1", "uint3", "uint7")
    },
    "torch bits8": "DLPack has no such type",
    "numpy void": "DLPack has no such type",
}


# What the crates have nothing near to.
BEYOND_CRATES = ["has no such type", "takes at most 8", "takes at least 1"]


@contextmanager
def of_numpy(make: Callable[[Path], np.ndarray], folder: Path) -> Iterator[tuple[Any, Any]]:
    array = make(folder)
    yield array, array


@contextmanager
def numbers_as_objects() -> Iterator[tuple[Any, Any]]:
    yield np.array([1, 2.5], dtype=object), None


def opened(name: str, folder: Path) -> Any:
    library, _, rest = name.partition(" ")
    if name == "numpy object":
        return numbers_as_objects()
    if library == "torch":
        return torch_sources.SOURCES[rest]()
    return of_numpy(numpy_sources.SOURCES[rest], folder)


# An array is described without torch: one road will do.
SOURCES = [(road, f"torch {name}") for road in ROADS for name in torch_sources.SOURCES]
SOURCES += [("linked", f"numpy {name}") for name in numpy_sources.SOURCES]


# --- what a fix says ----------------------------------------------------------------------------
LOSS = re.compile(r" \([^()]*\)$| where its values fit$")
RESULT = re.compile(r" (to copy|to cast|for a read-only view|for the object itself)$")
WITHOUT_COPY = re.compile(r"(?: and )?the call without copy=False$")
IMPORTED = {"np": np, "torch": torch, "dlbridge": dlbridge, "ml_dtypes": ml_dtypes}


def follow(way: str, x: Any, door: Callable[..., Any], how: dict[str, Any]) -> tuple[Any, str]:
    """The result of one of a fix's ways, done as written, and what it promised."""
    way = LOSS.sub("", way)
    found = RESULT.search(way)
    way = RESULT.sub("", way)
    if WITHOUT_COPY.search(way):
        how = {key: value for key, value in how.items() if key != "copy"}
        way = WITHOUT_COPY.sub("", way)
    if re.match(r"\w+=", way) or not way:
        more = eval(f"dict({way})", dict(IMPORTED))
        return door(x, **(how | more)), found[1] if found else ""
    return door(eval(way, IMPORTED | {"x": x}), **how), ""


def reach(way: str, x: Any, door: Callable[..., Any], how: dict[str, Any]) -> tuple[Any, str]:
    """The same. What comes of it may be refused for other reasons, with a fix of its own."""
    seen: list[tuple[str, ...]] = []

    def again(y: Any, **more: Any) -> Any:
        try:
            return door(y, **more)
        except dlbridge.ConversionRefused as refused:
            if refused.fix is None or refused.reasons in seen:
                raise
            seen.append(refused.reasons)
            return follow(refused.fix.split(", or ")[0], y, again, more)[0]

    try:
        door(x, **how)
    except dlbridge.ConversionRefused as refused:
        seen.append(refused.reasons)
    return follow(way, x, again, how)


def test_the_reader_of_fixes_reads_them() -> None:
    def door(x: Any, **how: Any) -> tuple[Any, ...]:
        return x, how

    how = {"copy": False, "policy": "strict"}
    assert follow("x.copy()", np.ones(1), door, how)[0][1] == how
    assert follow('policy="host" to copy', 1, door, {}) == ((1, {"policy": "host"}), "to copy")
    assert follow("the call without copy=False to copy", 1, door, how)[0][1] == {"policy": "strict"}
    way = 'policy="host" and the call without copy=False for a read-only view'
    assert follow(way, 1, door, how) == ((1, {"policy": "host"}), "for a read-only view")
    way = 'policy="host", dtype="float32" to cast (its values are rounded)'
    assert follow(way, 1, door, {})[0][1] == {"policy": "host", "dtype": "float32"}
    with pytest.raises(SyntaxError):
        follow("whatever helps", 1, door, {})


def same(result: np.ndarray, meant: np.ndarray, rounded: bool) -> bool:
    if result.shape != meant.shape and meant.size != 1:
        return False
    with np.errstate(all="ignore"):
        got, wanted = (np.asarray(plain(each)).astype("c16") for each in (result, meant))
        if rounded:
            return np.allclose(got, wanted.reshape(got.shape), rtol=1e-6, equal_nan=True)
        return np.array_equal(got, wanted.reshape(got.shape), equal_nan=True)


@pytest.mark.parametrize(("road", "name"), SOURCES, indirect=["road"])
@pytest.mark.parametrize("target", DOORS)
def test_every_fix_does_what_it_says(road: str, name: str, target: str, tmp_path: Path) -> None:
    if name == "torch nested jagged" and torch.__version__ < (2, 6):
        pytest.skip("this torch pads no jagged tensor")
    door = DOORS[target]
    for call, how in CALLS.items():
        if not how.keys() <= KNOWN[target]:
            continue
        with opened(name, tmp_path) as (x, beside):
            try:
                door(x, **how)
                continue
            except dlbridge.ConversionRefused as error:
                refused = error
            if refused.fix is None:
                listed = [WITHOUT_FIX.get(name, "there is no cast")]
                listed += BEYOND_CRATES if target == "crates" else []
                assert any(why in refused.reasons[0] for why in listed), (call, str(refused))
                continue
            assert refused.fix in str(refused)
            for way in refused.fix.split(", or "):
                if any(words in way for words in WORDS):
                    continue
                result, promise = reach(way, x, door, how)
                if promise == "for the object itself":
                    assert result is x
                    continue
                meant = MEANINGS[name](x) if name in MEANINGS else beside
                rounded = how.get("dtype") == "complex64" or "rounded" in way
                assert meant is not None, (call, way)
                assert same(plain(result), plain(meant), rounded), (call, way)
                if promise == "for a read-only view" and target == "numpy":
                    assert not result.flags.writeable and result.base is not None


def test_a_fix_may_have_to_densify_and_to_cast(road: str) -> None:
    """One does not help without the other."""

    def door(x: Any, **how: Any) -> np.ndarray:
        return dlbridge.to(x, "crates_for_fixes", **how).cells

    eye = np.eye(3)
    for x in (torch.tensor(eye).to_sparse(), torch.tensor(eye).to_sparse_csc()):
        for how in ({}, {"policy": "strict"}, {"copy": False}):
            with pytest.raises(dlbridge.ConversionRefused, match="sparse") as refused:
                door(x, **how)
            result, promise = follow(refused.value.fix, x, door, how)
            assert promise == "to cast" and np.array_equal(result, eye)
