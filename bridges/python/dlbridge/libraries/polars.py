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


# The call that makes numbers of each kind, the same where there are nulls, what it loses, and what
# a null becomes: beside the numbers of texts that of none.
_WHOLE = "x.cast(int)", "x.cast(int).fill_null(0)", "", "0"
_UNITS = "x.to_physical()", "x.to_physical().fill_null(0)", "the unit is lost, ", "0"
_TEXTS = (
    "x.to_physical()",
    "x.to_physical().cast(int).fill_null(-1)",
    "numbers for the texts, ",
    "-1",
)
_FIXES = {
    "String": ('x.rank("dense") - 1', 'x.rank("dense").fill_null(0)', _TEXTS[2], "0"),
    "Null": ("x.cast(float)", "x.cast(float).fill_null(0)", "", "0"),
    "Decimal": ("x.cast(float)", "x.cast(float).fill_null(0)", "values are rounded, ", "0"),
    **dict.fromkeys(("Int128", "UInt128"), _WHOLE),
    **dict.fromkeys(("Date", "Datetime", "Duration", "Time"), _UNITS),
    **dict.fromkeys(("Categorical", "Enum"), _TEXTS),
}


def _fix(x: Any) -> str | None:
    if hasattr(x, "columns"):
        return "x.to_dict()"
    found = _FIXES.get(str(getattr(x, "dtype", "")).partition("(")[0])
    if found is None:
        return None
    call, filled, lost, filler = found
    if x.null_count():
        return f"{filled} ({lost}nulls become {filler})"
    return f"{call} ({lost.removesuffix(', ')})" if lost else call


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
