"""What explain() tells beforehand is what a call then does, for every source and target."""

from __future__ import annotations

import array
import contextlib
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy_sources
import pytest
import torch
import torch_sources
from dlb_support import NUMPY_2, PRESETS, READ_ONLY, ROADS, producer_f32

import dlbridge

DENSIFY = dlbridge.host.replace(layout="densify")
CALLS: dict[str, dict[str, Any]] = {
    **{preset: {"policy": preset} for preset in PRESETS},
    "densify": {"policy": DENSIFY},
    "densify, writable": {"policy": DENSIFY, "writable": True},
    "densify, cast": {"policy": DENSIFY, "dtype": "float64"},
    "C order": {"order": "C"},
    "writable": {"writable": True},
    "writable, copy=False": {"writable": True, "copy": False},
    "cast": {"dtype": "complex128"},
    "upcast": {"policy": dlbridge.host.replace(dtype="upcast")},
    "bits": {"policy": dlbridge.host.replace(dtype="bits")},
    "alias": {"policy": dlbridge.host.replace(readonly="alias", grad="detach_writable")},
    "copies": {"policy": dlbridge.host.replace(overlap="copy", mutable="copy", grad="refuse")},
}
TARGETS = ("numpy", "torch", "dlbridge", *(["jax"] if find_spec("jax") else []))


def of_producer(flags: int) -> Callable[[], Any]:
    return lambda: producer_f32(flags=flags)


OTHERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"12345678",
    "bytearray": lambda: bytearray(16),
    "array": lambda: array.array("f", [1, 2]),
    "memoryview": lambda: memoryview(bytearray(8))[::2],
    "number": lambda: np.float32(2),
    "managed": lambda: dlbridge.from_dlpack(np.ones(3, "f4")),
    "managed, read-only": lambda: dlbridge.from_dlpack(b"12345678"),
    "capsule": lambda: dlbridge.capsule(np.ones(3, "f4")),
    "legacy capsule": lambda: dlbridge.capsule(np.ones(3, "f4"), max_version=(0, 8)),
    "producer": of_producer(0),
    "producer, read-only": of_producer(READ_ONLY),
}


@contextlib.contextmanager
def opened(library: str, name: str, folder: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "torch":
            with torch_sources.SOURCES[name]() as (tensor, _):
                yield tensor
        else:
            yield numpy_sources.SOURCES[name](folder) if library == "numpy" else OTHERS[name]()


def memory_of(x: Any) -> tuple[int, int] | None:
    """From its first byte to behind the last, where there is any that can be told."""
    try:
        if isinstance(x, torch.Tensor):
            storage = x.untyped_storage()
            return storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        if isinstance(x, np.ndarray):
            return (np.lib.array_utils if NUMPY_2 else np).byte_bounds(x)
        start = None if type(x).__name__ == "PyCapsule" else dlbridge.from_dlpack(x).data_ptr
        return None if start is None else (start, start + 1)
    except (RuntimeError, NotImplementedError, BufferError, TypeError, ValueError):
        return None


def look_at(made: Any) -> tuple[bool, bool, int]:
    """Whether it can be written to, whether it is in C order, and its bytes."""
    if isinstance(made, torch.Tensor):
        return True, made.is_contiguous(), made.nbytes
    if isinstance(made, np.ndarray):
        return made.flags.writeable, made.flags.c_contiguous, made.nbytes
    managed = dlbridge.from_dlpack(made)
    array = dlbridge.to_numpy(managed, policy=dlbridge.host.replace(dtype="bits"))
    return not managed.readonly, array.flags.c_contiguous, array.nbytes


def fault(x: Any, target: str, how: dict[str, Any]) -> str | None:
    """In what the Plan is not what was done."""
    try:
        plan: Any = dlbridge.explain(x, target, **how)
    except TypeError:
        plan = None
    before = memory_of(x)
    try:
        made = dlbridge.to(x, target, **how)
    except dlbridge.ConversionRefused as refused:
        same = plan is not None and plan.refused and plan.reasons == refused.reasons
        return None if same else f"told {plan!r}, and refused: {refused}"
    except TypeError as error:
        return None if plan is None else f"told {plan!r}, and raised {error!r}"
    if plan is None or plan.refused:
        return f"told {plan!r}, and made a {type(made).__name__}"
    if made is x:
        return None if plan.view and plan.bytes_copied == 0 else f"told {plan!r}, and gave itself"
    if isinstance(made, torch.Tensor) and made.layout is not torch.strided:
        return None  # by its parts, some of them shared: tests/python/libraries/test_scipy.py
    writable, in_order, size = look_at(made)
    if plan.writable != writable or plan.bytes_copied != (0 if plan.view else size):
        return f"told {plan!r}, and made {size} bytes, writable: {writable}"
    after = memory_of(made)
    if size == 0 or before is None or after is None or before[0] == before[1]:
        return None
    if plan.view != (before[0] < after[1] and after[0] < before[1]):
        return f"told {plan!r}, and it is the other way"
    own = target == "numpy" and dlbridge.explain(x, "dlbridge").refused  # by NumPy, as it does
    if not plan.view and not (in_order and (own or after[0] % 64 == 0)):
        return "a copy that is not in C order, or not aligned"
    return None


SOURCES: dict[str, Any] = {
    "torch": torch_sources.SOURCES,
    "numpy": numpy_sources.SOURCES,
    "others": OTHERS,
}


@pytest.mark.keeps_sources  # JAX keeps constants
@pytest.mark.parametrize(
    ("road", "library"),
    [(ROADS[0], "torch"), (ROADS[1], "torch"), (ROADS[0], "numpy"), (ROADS[0], "others")],
    indirect=["road"],
)
def test_it_does_what_it_says(road: str, library: str, tmp_path: Path) -> None:
    found = {}
    for name in SOURCES[library]:
        for target in TARGETS:
            for call, how in CALLS.items():
                with opened(library, name, tmp_path) as x:
                    if (met := fault(x, target, how)) is not None:
                        found[name, target, call] = met
    assert found == {}


@pytest.mark.parametrize("device", ["cuda_host", "cuda_managed", "rocm_host"])
@pytest.mark.parametrize("x", [np.ones(2), torch.ones(2)])
def test_memory_that_torch_does_not_name_is_not_asked_of_it(road: str, x: Any, device: str) -> None:
    plan = dlbridge.explain(x, "torch", device=device)
    assert plan.refused and f"no runtime for {device} devices" in plan.reasons[0]
    with pytest.raises(dlbridge.ConversionRefused, match="moves nothing there"):
        dlbridge.to_torch(x, device=device)


def test_a_layout_without_strides_is_asked_for_none(road: str) -> None:
    for make in (torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn):
        x = make(torch.ones(2, 3))
        # Leaves strides behind in memory that the next call may see.
        assert not dlbridge.explain(torch.ones(1, 1).expand(2, 3), "torch", writable=True).view
        assert dlbridge.to(x, "torch", writable=True) is x
        assert dlbridge.explain(x, "torch", writable=True).view
