"""array-api-strict: NumPy behind the standard's own surface."""

from dlbridge import Capabilities, Library
from dlbridge.libraries import COMPLEX, INTEGERS, UNSIGNED

ROWS = (
    Library(
        name="array_api_strict",
        object="array_api_strict.Array",
        capabilities=Capabilities(
            dtypes=("bool", *INTEGERS, *UNSIGNED, "float32", "float64", *COMPLEX),
            read_only="honours",
            reads_unaligned=True,
        ),
        take="array_api_strict:from_dlpack",
        address=lambda result: int(result._array.ctypes.data),
    ),
)
