"""MLX: it copies what it takes on the processor."""

from dlbridge import Capabilities, Library
from dlbridge.libraries import INTEGERS, UNSIGNED

ROWS = (
    Library(
        name="mlx",
        object="mlx.core.array",
        capabilities=Capabilities(
            dtypes=("bool", *INTEGERS, *UNSIGNED, "float16", "float32", "complex64", "bfloat16"),
            strides="non-negative",
            copies=True,
        ),
        take="mlx.core:from_dlpack",
        quirks={
            "copies_in": "mlx copies what it takes on the processor, whatever copy= says",
            "missing_dtype": "mlx turns float64 into float32 and complex128 into complex64 without "
            "a word",
            "negative_strides": "mlx refuses negative strides",
        },
    ),
)
