"""NumPy arrays of every kind that the policy table knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided, sliding_window_view

VALUES = np.arange(3, 15, dtype="f4").reshape(3, 4)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def field(dtype: str) -> np.ndarray:
    """A field of a packed record of 6 bytes."""
    size = np.dtype(dtype).itemsize
    record = np.dtype({"names": ["x"], "formats": [dtype], "offsets": [6 - size], "itemsize": 6})
    array = np.zeros(5, record)
    array["x"] = np.arange(5)
    return array["x"]


def unaligned(dtype: str = "f4", count: int = 6) -> np.ndarray:
    raw = np.zeros(count * np.dtype(dtype).itemsize + 1, "u1")
    array = raw[1:].view(dtype)
    array[...] = np.arange(count)
    assert not array.flags.aligned
    return array


def mapped(folder: Path, mode: Any) -> np.ndarray:
    path = folder / "values.npy"
    np.save(path, VALUES)
    return np.load(path, mmap_mode=mode)


def with_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    return as_strided(np.arange(3, 9, dtype="f4"), shape, strides)


def overlapping() -> np.ndarray:
    return as_strided(np.arange(6, dtype="f4"), (4, 3), (4, 4))


def of_ml_dtype(name: str) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, name))
    return np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)


# Where the array needs a file its builder takes a folder.
SOURCES: dict[str, Callable[[Path], np.ndarray]] = {
    "plain": lambda _: VALUES.copy(),
    "Fortran order": lambda _: np.asfortranarray(VALUES),
    "transposed": lambda _: VALUES.copy().T,
    "stepped": lambda _: VALUES.copy()[::2, 1::2],
    "0-d": lambda _: np.array(3.5, "f4"),
    "64 dims": lambda _: np.full((1,) * 64, 3, "f4"),
    "33 dims": lambda _: np.full((1,) * 30 + (2, 1, 3), 3, "f4"),
    "np.matrix": lambda _: VALUES.copy().view(np.matrix),
    "memmap r+": lambda folder: mapped(folder, "r+"),
    "memmap c": lambda folder: mapped(folder, "c"),
    "field, stride a multiple": lambda _: field("i2"),
    "size-1 dim, odd stride": lambda _: with_strides((1, 4), (7, 4)),
    "size-1 dim, negative stride": lambda _: np.full((1, 4), 3, "f4")[::-1],
    "empty, reversed": lambda _: np.ones((0, 3), "f4")[::-1, ::-1],
    "empty (0, 3)": lambda _: np.ones((0, 3), "f4"),
    "overlapping": lambda _: overlapping(),
    "ulonglong": lambda _: np.arange(5, dtype=np.ulonglong),
    "longlong": lambda _: np.arange(5, dtype=np.longlong),
    "read-only": lambda _: read_only(VALUES.copy()),
    "memmap r": lambda folder: mapped(folder, "r"),
    "of a bytes object": lambda _: np.frombuffer(VALUES.tobytes(), "f4"),
    "broadcast": lambda _: np.broadcast_to(np.arange(3, dtype="f4"), (4, 3)),
    "sliding windows": lambda _: sliding_window_view(np.arange(6, dtype="f4"), 3),
    "reversed": lambda _: VALUES.copy()[::-1],
    "flipped both ways": lambda _: VALUES.copy()[::-1, ::-1],
    "read-only, reversed": lambda _: read_only(VALUES.copy()[::-1]),
    "byte-swapped": lambda _: VALUES.astype(np.dtype("f4").newbyteorder()),
    "byte-swapped complex": lambda _: (VALUES * (1 + 2j)).astype(np.dtype("c16").newbyteorder()),
    "byte-swapped, reversed": lambda _: VALUES.astype(np.dtype("f4").newbyteorder())[:, ::-1],
    "unaligned": lambda _: unaligned(),
    "field, stride no multiple": lambda _: field("f4"),
    "masked": lambda _: np.ma.masked_less(VALUES.copy(), 5),
    "masked, nothing masked": lambda _: np.ma.asarray(VALUES.copy()),
    "object": lambda _: np.array([1, "a", None], dtype=object),
    "bytes": lambda _: np.array([b"ab", b"c"]),
    "str": lambda _: np.array(["ab", "c"]),
    "StringDType": lambda _: np.array(["ab", "c"], dtype=np.dtypes.StringDType()),
    "datetime64": lambda _: np.array(["2020-01-01"], dtype="M8[s]"),
    "datetime64, byte-swapped": lambda _: np.array(["2020-01-01"], dtype="M8[s]").astype(
        np.dtype("M8[s]").newbyteorder()
    ),
    "timedelta64": lambda _: np.array([1, 2], dtype="m8[s]"),
    "structured": lambda _: np.zeros(3, dtype=[("x", "f4"), ("y", "i4")]),
    "recarray": lambda _: np.zeros(3, dtype=[("x", "f4")]).view(np.recarray),
    "void": lambda _: np.zeros(3, dtype="V4"),
    "longdouble": lambda _: np.ones(3, np.longdouble),
    "clongdouble": lambda _: np.ones(3, np.clongdouble),
}
if np.lib.NumpyVersion(np.__version__) < "2.0.0":
    for _newer in ("64 dims", "33 dims", "StringDType"):
        del SOURCES[_newer]

NATIVE = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
for _native in NATIVE:
    SOURCES[f"dtype {_native}"] = lambda _, d=_native: np.arange(6).astype(d)

TORCH_HAS = {
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
}
TORCH_LACKS = {"float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "int4", "uint4"}
(TORCH_HAS if hasattr(torch, "float8_e8m0fnu") else TORCH_LACKS).add("float8_e8m0fnu")
for _ml in sorted(TORCH_HAS | TORCH_LACKS):
    SOURCES[f"ml_dtypes {_ml}"] = lambda _, d=_ml: of_ml_dtype(d)
