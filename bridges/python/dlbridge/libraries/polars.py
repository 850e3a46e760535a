"""polars: series and frames, by Arrow's interface."""

from typing import Any

from dlbridge import Library
from dlbridge._errors import refused


def _read(x: Any) -> Any:
    fields = getattr(getattr(x, "dtype", None), "fields", ())
    if len({field.dtype for field in fields}) > 1:
        reason = "the fields of its structs are of several types"
        raise refused("cannot take a polars.Series in", reason, "x.struct.unnest().to_dict()")
    return x


ROWS = (
    Library(
        name="polars",
        read=_read,
        fixes={
            "nulls": "x.fill_null({zero}) (nulls become {zero})",
            "mixed_types": "x.to_dict()",
            "read_only": "x.to_numpy(writable=True)",
        },
    ),
)
