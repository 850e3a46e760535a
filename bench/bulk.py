"""Copies that policy makes, against the faster of NumPy and torch with as many threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from measure import Figure, Line, figure

import dlbridge

to_numpy, to_torch = dlbridge.to_numpy, dlbridge.to_torch


def memory_bandwidth() -> float:
    """Bytes a second that a copy into place moves at best: the yardstick of the rest."""
    source = torch.ones(64 << 18)
    target = torch.empty_like(source)
    best = min(_timed(lambda: target.copy_(source)) for _ in range(15))
    return 2 * source.nbytes / best


def _timed(work: Callable[[], Any]) -> float:
    import time

    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


# A child with a number of threads of its own says what a copy into place takes, ours and torch's.
SCALING = """
import sys, timeit
import torch
import dlbridge
torch.set_num_threads(int(sys.argv[1]))
source = torch.ones(64 << 18)
target = torch.empty_like(source)
place = target.numpy()
for _ in range(32):
    ours = timeit.timeit(lambda: dlbridge.to_numpy(source, out=place), number=1)
    print(ours, timeit.timeit(lambda: target.copy_(source), number=1))
"""


def scaling() -> Iterator[Figure]:
    """How far one thread comes with a large copy, and how far two, against what a plain copy by as
    many threads gets out of the memory. torch's do not spin where ours are to run."""
    for threads in range(1, min(2, os.cpu_count() or 1) + 1):
        here = {"DLBRIDGE_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, "-c", SCALING, str(threads)]
        run = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | here
        )
        times = [float(word) for word in run.stdout.split()[2:]]  # the first touches the memory
        pairs = zip(times[::2], times[1::2], strict=True)
        words = "one thread" if threads == 1 else "two threads"
        name, plain = f"64 MiB into place, {words}", "a plain copy by as many"
        yield figure(Line("copies", name, plain, "", "", 1.0, moved=128 << 20), pairs)


def line(
    name: str,
    against: str,
    ours: Callable[[], Any],
    peers: tuple[Callable[[], Any], ...],
    goal: float,
    moved: int,
    calls: int = 1,
) -> Line:
    return Line("copies", name, against, ours, peers, goal, calls, 15, moved=moved)


def lines() -> Iterator[Line]:
    torch.set_num_threads(os.cpu_count() or 1)
    square = np.random.default_rng(0).random((4096, 4096), dtype="f4")
    tensor = torch.from_numpy(square)
    both = "NumPy, torch"

    yield line(
        "transposed 4096 x 4096 float32",
        both,
        lambda: to_numpy(square.T, copy=True),
        (lambda: np.ascontiguousarray(square.T), lambda: tensor.T.contiguous()),
        0.2,
        2 * square.nbytes,
    )
    images = np.random.default_rng(0).integers(0, 255, (64, 224, 224, 3), dtype="u1")
    image_tensor = torch.from_numpy(images)
    nchw = images.transpose(0, 3, 1, 2)
    nchw_tensor = image_tensor.permute(0, 3, 1, 2)
    yield line(
        "64 images NHWC to NCHW, uint8",
        both,
        lambda: to_numpy(nchw, copy=True),
        (lambda: np.ascontiguousarray(nchw), lambda: nchw_tensor.contiguous()),
        0.4,
        2 * images.nbytes,
    )
    yield line(
        "the same, to float32",
        both,
        lambda: to_numpy(nchw, dtype="float32"),
        (
            lambda: nchw.astype("f4", order="C"),
            lambda: nchw_tensor.to(torch.float32, memory_format=torch.contiguous_format),
        ),
        1.0,
        5 * images.nbytes,
    )
    reversed_channels = images[..., ::-1].transpose(0, 3, 1, 2)
    yield line(
        "64 images BGR to planes of RGB, uint8",
        "NumPy",
        lambda: to_numpy(reversed_channels, copy=True),
        (lambda: np.ascontiguousarray(reversed_channels),),
        0.5,
        2 * images.nbytes,
    )
    yield line(
        "reversed both ways, 4096 x 4096 float32",
        "NumPy",
        lambda: to_numpy(square[::-1, ::-1], copy=True),
        (lambda: np.ascontiguousarray(square[::-1, ::-1]),),
        0.667,
        2 * square.nbytes,
    )
    yield line(
        "contiguous, 64 MiB",
        both,
        lambda: to_numpy(square, copy=True),
        (square.copy, tensor.clone),
        1.0,
        2 * square.nbytes,
    )
    for mebibytes in (1, 4, 8):  # within the cache
        part = tensor[: 64 * mebibytes]
        yield line(
            f"contiguous, {mebibytes} MiB",
            "t.clone().numpy()",
            lambda part=part: to_numpy(part, copy=True),
            (lambda part=part: part.clone().numpy(),),
            1.0,
            2 * part.nbytes,
            32 // mebibytes,
        )
    narrow = tensor.to(torch.bfloat16)
    yield line(
        "bfloat16 to float32, 32 MiB",
        "torch",
        lambda: to_numpy(narrow, dtype="float32"),
        (narrow.float,),
        1.0,
        3 * narrow.nbytes,
    )
    waves = torch.complex(tensor[:2048], tensor[2048:])
    conjugate = waves.conj()
    yield line(
        "conj complex64, 64 MiB",
        "torch",
        lambda: to_numpy(conjugate),
        (conjugate.resolve_conj,),
        1.0,
        2 * waves.nbytes,
    )
