"""Warp."""

from typing import Any

from dlbridge import Capabilities, Library
from dlbridge.libraries import FLOATS, INTEGERS, UNSIGNED


def _take(managed: Any) -> Any:
    import warp

    warp.init()
    return warp.from_dlpack(managed)


ROWS = (
    Library(
        name="warp",
        object="warp.array",
        legacy_writable=True,
        fixes={"read_only": "warp.clone(x)"},
        capabilities=Capabilities(
            devices=("cpu", "cuda"),
            dtypes=("bool", *INTEGERS, *UNSIGNED, *FLOATS, "bfloat16"),
            min_dimensions=1,
            max_dimensions=4,
        ),
        take=_take,
        address=lambda result: int(result.ptr or 0),
        quirks={
            "always": "warp ignores byte_offset and lanes; offsets are applied before, and types "
            "with lanes refused",
            "read_only": "warp asks for legacy capsules, which cannot say that memory is read-only",
        },
    ),
)
