"""The plain holders of memory that come with Python, and Pillow's images, as rows."""

from __future__ import annotations

import array
import ctypes
import math
from typing import Any

import dlbridge
from dlbridge import Capabilities, Library
from dlbridge.libraries import INTEGERS, PLAIN, UNSIGNED, address_by_dlpack

# The letters of array.array, by the type that each is on this machine.
_LETTERS = {
    f"{kind}{8 * array.array(letter).itemsize}": letter
    for kind, letters in (("int", "bhiq"), ("uint", "BHIQ"), ("float", "fd"))
    for letter in letters
}

_CTYPES: dict[str, Any] = {
    **{name: getattr(ctypes, f"c_{name}") for name in ("bool", *INTEGERS, *UNSIGNED)},
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


def _to_array(managed: Any) -> array.array[Any]:
    made: array.array[Any] = array.array(_LETTERS[str(managed.dtype)])
    made.frombytes(memoryview(managed).tobytes())
    return made


def _to_ctypes(managed: Any) -> Any:
    """An array type of the shape, over the memory; a plain value for no dimensions."""
    kind = _CTYPES[str(managed.dtype)]
    for size in reversed(managed.shape):
        kind = kind * size
    if math.prod(managed.shape) == 0:
        return kind()  # there is nothing to share
    return kind.from_buffer(memoryview(managed).cast("B"))


def _to_image(managed: Any) -> Any:
    from PIL import Image

    image = Image.fromarray(dlbridge.to_numpy(managed))
    return image.copy() if image.readonly else image


ROWS = (
    Library(
        name="memoryview",
        capabilities=Capabilities(dtypes=PLAIN, read_only="honours", reads_unaligned=True),
        take=memoryview,
        address=address_by_dlpack,
    ),
    Library(
        name="array",
        object="array.array",
        capabilities=Capabilities(
            dtypes=tuple(_LETTERS),
            reads_unaligned=True,
            min_dimensions=1,
            max_dimensions=1,
            copies=True,
        ),
        take=_to_array,
        quirks={"copies_in": "an array.array always owns its memory"},
    ),
    Library(
        name="ctypes",
        object="ctypes array",
        capabilities=Capabilities(dtypes=tuple(_CTYPES), strides="compact", read_only="unaware"),
        take=_to_ctypes,
        address=ctypes.addressof,
        quirks={"read_only": "ctypes can be written to, and knows no read-only memory"},
    ),
    Library(
        name="PIL",
        object="PIL.Image.Image",
        copies_out=True,
        capabilities=Capabilities(
            dtypes=("bool", "uint8", "uint16", "int32", "float32"),
            reads_unaligned=True,
            min_dimensions=2,
            max_dimensions=3,
            copies=True,
        ),
        take=_to_image,
        quirks={"copies_in": "Pillow's image owns its memory", "copies_out": "Pillow copies"},
    ),
)
