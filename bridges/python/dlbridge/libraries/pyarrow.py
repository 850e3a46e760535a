"""pyarrow: tensors, and arrays of one dimension."""

from typing import Any

from dlbridge import Capabilities, Library
from dlbridge._errors import refused
from dlbridge.libraries import FLOATS, INTEGERS, UNSIGNED, address_by_dlpack


def _read(x: Any) -> Any:
    if type(x).__name__ != "ChunkedArray":
        return x
    if x.num_chunks != 1:
        raise refused(
            "cannot take a pyarrow.ChunkedArray in",
            f"its {x.num_chunks} chunks lie apart",
            "x.combine_chunks()",
        )
    return x.chunk(0)


ROWS = (
    Library(
        name="pyarrow",
        read=_read,
        fixes={"read_only": "x.to_numpy(zero_copy_only=False).copy()"},
        capabilities=Capabilities(
            result="pyarrow.Tensor",
            dtypes=(*INTEGERS, *UNSIGNED, *FLOATS),
            strides="non-negative",
            read_only="honours",
        ),
        take="pyarrow:Tensor.from_dlpack",
        address=address_by_dlpack,
        quirks={
            "missing_dtype": "pyarrow's DLPack has no bool, no complex and no bfloat16",
            "negative_strides": "pyarrow refuses negative strides",
        },
    ),
    Library(
        name="pyarrow.Array",
        capabilities=Capabilities(
            result="pyarrow.Array",
            dtypes=(*INTEGERS, *UNSIGNED, *FLOATS),
            strides="compact",
            min_dimensions=1,
            max_dimensions=1,
            read_only="honours",
            writable=False,
        ),
        take="pyarrow:Array.from_dlpack",
        address=address_by_dlpack,
    ),
)
