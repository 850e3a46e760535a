"""pyarrow: tensors, arrays of one dimension, and columns in chunks and side by side."""

from typing import Any

from dlbridge import Capabilities, ConversionRefused, Library
from dlbridge._errors import refused
from dlbridge.libraries import COLUMN, FLOATS, INTEGERS, UNSIGNED, address_by_dlpack

# The names of the types that it exports through DLPack, what else than 0 nulls of a type may
# become, and the types that count from a date or a time.
_NUMBERS = (*INTEGERS, *UNSIGNED, "halffloat", "float", "double")
_FILLERS = dict.fromkeys(("halffloat", "float", "double"), 'float("nan")') | {"bool": "False"}
_BY_NAME = "dict(zip(x.column_names, x.columns))"
_TEMPORAL = ("date", "time", "timestamp", "duration")


class _Column:
    """An array by Arrow's own interface, which says more of it than its DLPack does."""

    def __init__(self, x: Any) -> None:
        self._x = x

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self._x.__arrow_c_array__(requested_schema)


def _read(x: Any) -> Any:
    if type(x).__name__ == "RecordBatchReader":
        raise refused(
            "cannot take a pyarrow.RecordBatchReader in",
            "it can be read only once, and whoever looks at it reads it",
            "x.read_all()",
        )
    if type(x).__name__.endswith(("StringScalar", "StringViewScalar")):
        raise TypeError(f"a pyarrow.{type(x).__name__} is no array, but one text: x.as_py()")
    if type(x).__name__ == "ChunkedArray" and x.num_chunks == 1:
        x = x.chunk(0)
    if type(x).__name__ == "FixedShapeTensorArray":
        return x.to_numpy_ndarray() if not _nulls(x) else _Column(x)
    what = f"cannot take a pyarrow.{type(x).__name__} in"
    is_struct = str(getattr(x, "type", "")).startswith("struct") and hasattr(x, "flatten")
    fields = x.type if is_struct else getattr(x, "schema", ())
    if len({field.type for field in fields}) > 1:
        unique = len({field.name for field in fields}) == len(fields)
        if is_struct:
            fix = "dict(zip([field.name for field in x.type], x.flatten()))"
            reason = "the fields of its structs are of several types"
            raise refused(what, reason, fix if unique else "x.flatten() (without their names)")
        if not unique:
            reason = "its columns are of several types, and some of one name"
            raise refused(what, reason, "x.columns (without their names)")
    if hasattr(x, "__arrow_c_stream__"):
        return x  # columns, by Arrow's own interface
    # What has no type has no gaps either: its Tensor holds numbers, as what lends one on does.
    kind = getattr(x, "type", None)
    if kind is not None and (_nulls(x) or str(kind) not in _NUMBERS):
        bits = str(kind) == "bool" and not _nulls(x)
        said = bits or _is_text(kind) or _fix(x) is None
        if said and hasattr(x, "__arrow_c_array__"):
            return _Column(x)  # the rest pyarrow refuses by itself
    return x


def _refusal(x: Any, error: Exception) -> ConversionRefused | None:
    if not isinstance(error, TypeError):
        return None  # its own refusals are, and know no way out
    what = f"cannot take a pyarrow.{type(x).__name__} in"
    return refused(what, str(error).rstrip("."), _fix(x))


def _is_text(kind: Any) -> bool:
    item = kind.value_type if str(kind).startswith("dictionary") else kind
    return str(item).startswith(("string", "large_string"))


def _nulls(x: Any) -> int:
    return getattr(x, "null_count", 0)  # a Tensor has none


def _fix(x: Any) -> str | None:
    """The calls of pyarrow's that make numbers of it, where there are some."""
    if hasattr(x, "column_names"):
        unique = len(set(x.column_names)) == len(x.column_names)
        return _BY_NAME if unique else "x.columns (without their names)"
    kind = str(getattr(x, "type", ""))  # a Tensor has none
    call = "x"
    lost = []
    if kind.startswith("dictionary") and str(x.type.value_type) in _NUMBERS:
        return "x.dictionary_decode()"
    if hasattr(x, "dictionary_encode") and _is_text(x.type):
        call = "x.combine_chunks()" if hasattr(x, "chunks") else "x"
        call += ".dictionary_encode().indices"
        if _nulls(x):
            return f'{call}.cast("int64").fill_null(-1) (numbers for the texts, nulls become -1)'
        return f"{call} (numbers for the texts)"
    if _nulls(x):
        filler = _FILLERS.get(kind, "0")
        call += f".fill_null({filler})"
        lost.append(f"nulls become {filler}")
    by_arrow = hasattr(x, "__arrow_c_array__") or hasattr(x, "__arrow_c_stream__")
    if kind == "bool" and not by_arrow:
        call += '.cast("uint8")'
        lost.append("False and True become 0 and 1")
    elif kind.startswith(_TEMPORAL):
        call += f'.cast("int{x.type.bit_width}")'
        lost.append("the unit is lost")
    elif kind.startswith("decimal"):
        call += '.cast("float64")'
        lost.append("values are rounded")
    elif kind not in _NUMBERS and kind != "bool":
        return None  # texts, lists and structs are no numbers
    return f"{call} ({', '.join(lost)})"


ROWS = (
    Library(
        name="pyarrow",
        read=_read,
        refusal=_refusal,
        fix_for=_fix,
        fixes={
            "read_only": "dlbridge.to_numpy(x, copy=True)",
            "mixed_types": _BY_NAME,
        },
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
        capabilities=Capabilities(result="pyarrow.Array", **COLUMN),
        take="pyarrow:Array.from_dlpack",
        address=address_by_dlpack,
    ),
)
