"""xarray: what its arrays hold. By Arrow's interface they would be rows, with their coordinates."""

from typing import Any

from dlbridge import Library
from dlbridge._errors import refused


def _read(x: Any) -> Any:
    if hasattr(x, "data_vars"):
        reason = "it is several arrays"
        raise refused(f"cannot take an xarray.{type(x).__name__} in", reason, "dict(x.data_vars)")
    variable = getattr(x, "variable", x)
    # What lies in a file is a variable still, and loaded by it.
    return variable.data if variable._in_memory or variable.chunks else variable


ROWS = (Library(name="xarray", read=_read),)
