"""The libraries that dlbridge knows: a file each, read when its library is first met.

Each file gives ``ROWS``: data, measured on the releases of 2026-11. They use what a row of
anybody's can use, and are found by name, as an entry point is. The tests of tests/python/libraries
hold every row against the library itself.

``known()`` gives the rows of all libraries, registered ones included, ``named(name)`` one of them,
or None, ``capabilities_of(library)`` what it can take now, and ``function_of(given)`` the function
where a "module:name" may stand for one.
"""

from typing import Any

from dlbridge import _registry
from dlbridge._core import from_dlpack

known = _registry.libraries
named = _registry.library_named
capabilities_of = _registry.capabilities_of
function_of = _registry.function_of

# The types that libraries have, by the names that Capabilities.dtypes takes.
INTEGERS = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
WIDE = ("int64", "uint64", "float64", "complex128")
PLAIN = ("bool", *INTEGERS, *UNSIGNED, *FLOATS, *COMPLEX)
FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
MORE_FLOAT8 = ("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz")

# What a column of Arrow's can be made of: fields of Capabilities.
COLUMN: dict[str, Any] = {
    "dtypes": (*INTEGERS, *UNSIGNED, *FLOATS),
    "strides": "compact",
    "min_dimensions": 1,
    "max_dimensions": 1,
    "read_only": "honours",
    "writable": False,
}


def address_by_dlpack(result: Any) -> int:
    """For ``Library.address``: where a result's memory is, of a library that does not tell."""
    return from_dlpack(result).data_ptr
