"""Dr.Jit: its LLVM tensors."""

from typing import Any

from dlbridge import Capabilities, Library
from dlbridge.libraries import address_by_dlpack

_TYPES = {
    "bool": "TensorXb",
    "int8": "TensorXi8",
    "int32": "TensorXi",
    "int64": "TensorXi64",
    "uint8": "TensorXu8",
    "uint32": "TensorXu",
    "uint64": "TensorXu64",
    "float16": "TensorXf16",
    "float32": "TensorXf",
    "float64": "TensorXf64",
}


def _take(managed: Any) -> Any:
    import drjit.llvm

    return getattr(drjit.llvm, _TYPES[str(managed.dtype)])(managed)


ROWS = (
    Library(
        name="drjit",
        capabilities=Capabilities(
            result="drjit.llvm.TensorX", dtypes=tuple(_TYPES), strides="compact"
        ),
        take=_take,
        address=address_by_dlpack,
        quirks={
            "not_compact": "drjit refuses what is not C-contiguous",
            "read_only": "drjit drops the read-only flag",
        },
    ),
)
