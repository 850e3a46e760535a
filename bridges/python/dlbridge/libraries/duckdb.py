"""duckdb: what a query gives, as columns by Arrow's interface."""

from typing import Any

from dlbridge import Library


def _fix(x: Any) -> str:
    if all(str(kind) == "VARCHAR" for kind in x.types):
        # Whether there are nulls among them is not known before the query has run.
        return "x.select(\"coalesce(columns(*), '')\").fetchnumpy() (nulls become '')"
    rounded = any(str(kind).startswith(("DECIMAL", "HUGEINT", "UHUGEINT")) for kind in x.types)
    return "x.fetchnumpy()" + (" (values are rounded)" if rounded else "")


ROWS = (
    Library(
        name="duckdb",
        fix_for=_fix,
        fixes={
            "nulls": 'x.select("coalesce(columns(*), {zero})") (nulls become {zero})',
            "mixed_types": "x.fetchnumpy()",
        },
    ),
)
