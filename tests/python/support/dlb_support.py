"""What several test files need: settling, addresses, hand-made producers, child processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dlbridge_probe as probe
import numpy as np

import dlbridge
from dlbridge.testing import _hand_made

HOST = (1, 0)
READ_ONLY, IS_COPIED, PADDED = 1, 2, 4
ROADS = ("linked", "portable")  # to torch
PRESETS = ("strict", "host", "zero_copy", "snapshot")
F32 = (2, 32, 1)
NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"


def live() -> int:
    return dlbridge._core.live_managed_tensors()


def counters() -> dict[str, int]:
    """What has to be the same after a test as before it."""
    return {
        "managed tensors alive": live(),
        "deleters not called": probe.outstanding() + testing_kit_outstanding(),
        "deleters called again": probe.deleted_twice(),
    }


SPEAKS = {"__dlpack__", "__array_interface__", "__array_struct__", "__cuda_array_interface__"}


def sources_alive() -> dict[str, int]:
    """What a reference to a source, taken and not given back, keeps alive: an object that speaks a
    protocol, as the garbage collector lists it, or the memory of an array, which it does not list.
    """
    kinds = Counter(map(type, gc.get_objects()))
    return {
        "producers alive": sum(
            count
            for kind, count in kinds.items()
            if not all(SPEAKS.isdisjoint(vars(base)) for base in kind.__mro__)
        ),
        "blocks of memory of arrays": probe.numpy_blocks(),
    }


def testing_kit_outstanding() -> int:
    return sum(bool(made.managed.deleter) and not made.deleted for made in _hand_made._kept)


def settle() -> None:
    """Carries out what a deleter called without the GIL had to leave for later."""
    gc.collect()
    dlbridge.from_dlpack(np.zeros(1))
    gc.collect()


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def native(dtype: np.dtype) -> np.dtype:
    """The dtype in the machine's byte order (ml_dtypes know no other, and refuse to be asked)."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def bounds(array: np.ndarray) -> tuple[int, int]:
    """The first byte of the array's elements and the one behind the last."""
    low = high = address(array)
    for length, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (length - 1) * stride
        else:
            high += (length - 1) * stride
    return low, high + array.itemsize


def shares(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.shares_memory(a, b))


def is_private(array: np.ndarray) -> bool:
    """Whether the array is what the design calls a copy: writable, C order, aligned to 64 bytes."""
    return bool(
        array.flags.writeable
        and array.flags.c_contiguous
        and (array.size == 0 or address(array) % 64 == 0)
    )


def make_f32(count: int = 6, **changes: Any) -> tuple[Any, int]:
    """A raw capsule of 0.0, 1.0, ... and its token."""
    arguments: dict[str, Any] = {"data": np.arange(count, dtype="f4").tobytes(), "shape": (count,)}
    return probe.make(**(arguments | changes))


class Producer:
    """A well-behaved producer of hand-made capsules, written in Python."""

    device = HOST

    def __init__(self, **recipe: Any) -> None:
        self.source = probe.Producer(**recipe)
        self.calls: list[dict[str, Any]] = []

    @property
    def token(self) -> int:
        return self.source.token

    def __dlpack__(self, **keywords: Any) -> Any:
        self.calls.append(keywords)
        asked = keywords.get("max_version")
        return self.source.capsule(versioned=asked is not None and asked[0] >= 1)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def producer_f32(count: int = 6, kind: type[Producer] = Producer, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"data": np.arange(count, dtype="f4").tobytes(), "shape": (count,)}
    return kind(**(arguments | changes))


def torch_bytes(tensor: Any) -> bytes:
    """The elements of a torch tensor in C order, by torch's own means."""
    import torch

    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()


def run_child(code: str, *arguments: str, road: str | None = None, timeout: float = 120) -> str:
    """Runs the code in a process of its own; gives its output. A crash or a hang is a failure."""
    lines = ["import faulthandler", "faulthandler.enable()"]
    if road is not None:
        lines += ["import torch, dlbridge", f"dlbridge._core.torch_road({road!r})"]
    return run_python("-c", "\n".join([*lines, code]), *arguments, timeout=timeout)


def run_python(*arguments: str, timeout: float = 120) -> str:
    here = str(Path(__file__).parent)  # so that the child finds this module
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"the child hung; it had said: {late.stdout!r} {late.stderr!r}"
        ) from None
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def scenario_outcomes(script: Path, arguments: list[str], names: list[str]) -> dict[str, str]:
    """Runs a script of scenarios, in a new child after each crash. Freed memory is overwritten."""
    freed = "max_free_fill_size=1073741824:free_fill_byte=221"
    sanitizer = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), freed]))
    found: dict[str, str] = {}
    left = list(names)
    while left:
        done = subprocess.run(
            [sys.executable, str(script), *arguments, *left],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ
            | {"PYTHONFAULTHANDLER": "1", "MALLOC_PERTURB_": "221", "ASAN_OPTIONS": sanitizer},
        )
        for line in done.stdout.splitlines():
            if line.startswith("end|"):
                _, name, result = line.split("|", 2)
                found[name] = result
        rest = [name for name in left if name not in found]
        if rest:
            found[rest[0]] = f"CRASHED with exit {done.returncode}: {done.stderr[-600:]}"
        left = rest[1:]
        if sum(result.startswith("CRASHED") for result in found.values()) > 8:
            found |= dict.fromkeys(left, "not run: too many crashes before")
            break
    return found
