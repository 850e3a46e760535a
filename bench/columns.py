"""Columns of polars, each held against the way out that polars has itself.

Of the environment of `make libraries`: python bench/run.py --only columns
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import Line

import dlbridge


def pair(
    name: str,
    against: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    goal: float | None,
    calls: int,
) -> Line:
    return Line("columns", name, against, ours, peer, goal, calls)


def lines() -> list[Line]:
    """None where there is no polars."""
    if importlib.util.find_spec("polars") is None:
        return []
    import polars

    column = polars.Series("a", np.arange(1000.0))
    chunks = polars.concat([polars.Series("a", np.arange(1e6))] * 4, rechunk=False)
    flags = polars.Series("a", np.arange(1 << 20) % 3 == 0)
    frame = polars.DataFrame({str(i): np.arange(1e5) for i in range(8)})
    alias = dlbridge.host.replace(readonly="alias")
    return [
        pair(
            "column to NumPy",
            "x.to_numpy()",
            lambda: dlbridge.to_numpy(column),
            lambda: column.to_numpy(),
            0.5,
            2000,
        ),
        pair(
            'column to torch, readonly="alias"',
            "torch.from_numpy(x.to_numpy())",
            lambda: dlbridge.to_torch(column, policy=alias),
            lambda: torch.from_numpy(column.to_numpy()),
            0.5,
            2000,
        ),
        pair(
            "4 chunks of 8 MB to NumPy",
            "x.to_numpy()",
            lambda: dlbridge.to_numpy(chunks),
            lambda: chunks.to_numpy(),
            1.0,
            2,
        ),
        pair(
            "a million booleans to NumPy",
            "x.to_numpy()",
            lambda: dlbridge.to_numpy(flags),
            lambda: flags.to_numpy(),
            1.0,
            5,
        ),
        pair(
            "8 columns of 100,000 to NumPy, C order",
            'x.to_numpy(order="c")',
            lambda: dlbridge.to_numpy(frame),
            lambda: frame.to_numpy(order="c"),
            1.0,
            5,
        ),
    ]
