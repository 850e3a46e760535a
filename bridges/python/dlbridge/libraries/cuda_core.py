"""cuda.core: its view of strided memory, as a target."""

from typing import Any

from dlbridge import Capabilities, Library
from dlbridge.libraries import PLAIN


def _take(managed: Any) -> Any:
    from cuda.core.utils import StridedMemoryView

    return StridedMemoryView.from_dlpack(managed, -1)


ROWS = (
    Library(
        name="cuda.core",
        modules=("cuda",),
        object="cuda.core.StridedMemoryView",
        capabilities=Capabilities(dtypes=PLAIN, read_only="honours"),
        take=_take,
        address=lambda result: int(result.ptr),
    ),
)
