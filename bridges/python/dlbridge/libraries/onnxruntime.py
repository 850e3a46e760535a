"""ONNX Runtime: its OrtValues."""

from dlbridge import Capabilities, Library
from dlbridge.libraries import FLOAT8, FLOATS, INTEGERS, UNSIGNED

ROWS = (
    Library(
        name="onnxruntime",
        object="onnxruntime.OrtValue",
        legacy_writable=True,
        capabilities=Capabilities(
            dtypes=("bool", *INTEGERS, *UNSIGNED, *FLOATS, "bfloat16", *FLOAT8), strides="compact"
        ),
        take="onnxruntime:OrtValue.from_dlpack",
        address=lambda result: int(result.data_ptr()),
        quirks={
            "not_compact": "onnxruntime refuses what is not C-contiguous",
            "read_only": "onnxruntime asks for legacy capsules, which cannot say that memory is "
            "read-only",
        },
    ),
)
