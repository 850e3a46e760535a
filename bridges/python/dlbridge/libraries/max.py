"""MAX: its driver's buffers."""

from collections.abc import Iterable
from typing import Any

from dlbridge import Capabilities, Library
from dlbridge.libraries import FLOATS, INTEGERS, UNSIGNED


def _read(x: Any) -> Any:
    return x if getattr(x, "is_contiguous", True) else x.contiguous()


def _conditions(x: Any) -> Iterable[str]:
    return () if getattr(x, "is_contiguous", True) else ("copies_out",)


ROWS = (
    Library(
        name="max",
        object="max.driver.Buffer",
        legacy_writable=True,
        read=_read,
        conditions=_conditions,
        fixes={"copies_out": "x.contiguous()"},
        capabilities=Capabilities(
            dtypes=(
                "bool",
                *INTEGERS,
                *UNSIGNED,
                *FLOATS,
                "bfloat16",
                "float8_e4m3fn",
                "float8_e4m3fnuz",
                "float8_e5m2",
                "float8_e5m2fnuz",
            ),
            strides="compact",
        ),
        take="max.driver:Buffer.from_dlpack",
        address=lambda result: int(result._data_ptr()),
        quirks={
            "always": "max ignores byte_offset, which is applied before",
            "not_compact": "max ignores strides, and would compute with other elements",
            "read_only": "max takes legacy capsules, which cannot say that memory is read-only",
        },
    ),
)
