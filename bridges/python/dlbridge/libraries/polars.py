"""polars: series and frames, by Arrow's interface."""

from dlbridge import Library

ROWS = (
    Library(
        name="polars",
        fixes={
            "nulls": "x.fill_null({zero}) (nulls become {zero})",
            "mixed_types": "x.to_dict()",
            "read_only": "x.to_numpy(writable=True)",
        },
    ),
)
