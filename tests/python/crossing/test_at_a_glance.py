"""What passes as it is is told at a glance; where a ledger is open the whole Plan is made, and the
two come to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge

SOURCES: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.arange(6.0).reshape(2, 3),
    "row of a tensor": lambda: torch.arange(6.0).reshape(2, 3)[1:],
    "column of a tensor": lambda: torch.arange(6.0).reshape(2, 3)[:, 1:],
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "parameter": lambda: torch.nn.Parameter(torch.ones(3), requires_grad=False),
    "in a graph": lambda: torch.ones(3, requires_grad=True),
    "no elements": lambda: torch.ones(0, 3),
    "array": lambda: np.arange(6.0).reshape(2, 3),
    "array of no dimensions": lambda: np.array(3.0),
    "row of an array": lambda: np.arange(6.0).reshape(2, 3)[1:],
    "one element of a step": lambda: np.arange(6.0)[::2][:1].reshape(1, 1),
    "of bytes that lie anywhere": lambda: np.zeros(9, "u1")[1:].view("f4"),
    "read-only": lambda: np.frombuffer(b"12345678", "f4"),
    "of another class": lambda: np.ones(3).view(type("Own", (np.ndarray,), {})),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "to_numpy": dlbridge.to_numpy,
    "to_torch": dlbridge.to_torch,
    "from_dlpack": dlbridge.from_dlpack,
    "to": lambda x: dlbridge.to(x, "torch" if isinstance(x, np.ndarray) else "numpy"),
    "of a tree": lambda x: dlbridge.to_numpy([x])[0],
    "for writing": lambda x: dlbridge.to_numpy(x, writable=True),
    "a copy": lambda x: dlbridge.to_numpy(x, copy=True),
}


def told(call: Callable[[Any], Any], x: Any) -> Any:
    """What became of it, and what was counted."""
    before = dlbridge.stats()
    try:
        result = call(x)
    except dlbridge.ConversionRefused as refused:
        return str(refused)
    now = dlbridge.stats()
    seen = dlbridge.from_dlpack(result)
    return (
        type(result),
        result is x,
        (seen.shape, seen.strides, seen.dtype, seen.readonly),
        seen.data_ptr == dlbridge.from_dlpack(x).data_ptr,
        (now.views - before.views, now.copies - before.copies),
    )


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_glance_comes_to_the_same_as_the_whole_plan(road: str, source: str, call: str) -> None:
    x = SOURCES[source]()
    at_a_glance = told(CALLS[call], x)
    with dlbridge.trace():
        assert told(CALLS[call], x) == at_a_glance
