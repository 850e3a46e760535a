"""NumPy, which has a compiled bridge."""

from __future__ import annotations

from typing import Any

import dlbridge
from dlbridge import Library


def _convert(x: Any, *, policy: Any, dtype: Any, copy: bool | None, device: Any) -> Any:
    if device is None:
        return dlbridge.to_numpy(x, policy=policy, dtype=dtype, copy=copy)
    there = dlbridge.to(x, "dlbridge", policy=policy, dtype=dtype, copy=copy, device=device)
    return dlbridge.to_numpy(there, policy=policy)


ROWS = (Library(name="numpy", object="numpy.ndarray", convert=_convert),)
