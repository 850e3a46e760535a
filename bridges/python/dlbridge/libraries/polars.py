"""polars: series and frames, by Arrow's interface."""

from typing import Any

from dlbridge import Capabilities, Library
from dlbridge._errors import refused
from dlbridge.libraries import COLUMN


def _read(x: Any) -> Any:
    fields = getattr(getattr(x, "dtype", None), "fields", ())
    if len({field.dtype for field in fields}) > 1:
        reason = "the fields of its structs are of several types"
        raise refused("cannot take a polars.Series in", reason, "x.struct.unnest().to_dict()")
    return x


def _fix(x: Any) -> str | None:
    if hasattr(x, "columns"):
        return "x.to_dict()"
    kind = str(getattr(x, "dtype", "")).partition("(")[0]
    if kind == "String":
        return 'x.rank("dense") - 1 (numbers for the texts)'
    if kind in ("Int128", "UInt128"):
        return "x.cast(int)"
    if kind == "Null":
        return "x.cast(float)"
    if kind in ("Date", "Datetime", "Duration", "Time"):
        return "x.to_physical() (the unit is lost)"
    if kind in ("Categorical", "Enum"):
        return "x.to_physical() (numbers for the texts)"
    return "x.cast(float) (values are rounded)" if kind == "Decimal" else None


def _to_series(array: Any) -> Any:
    import polars

    return polars.Series(array)


ROWS = (
    Library(
        name="polars",
        read=_read,
        fix_for=_fix,
        fixes={
            "nulls": "x.fill_null({zero}) (nulls become {zero})",
            "mixed_types": "x.to_dict()",
            "read_only": "dlbridge.to_numpy(x, copy=True)",
        },
        capabilities=Capabilities(result="polars.Series", takes_as_constant=True, **COLUMN),
        take=_to_series,
        handed="array",
        address=lambda made: int(made.to_numpy().ctypes.data),
        quirks={"missing_dtype": "polars packs booleans into bits"},
    ),
)
