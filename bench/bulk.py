"""Copies that policy makes, against the faster of NumPy and torch with as many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from measure import Line

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


def line(
    name: str,
    against: str,
    ours: Callable[[], Any],
    peers: tuple[Callable[[], Any], ...],
    goal: float,
    moved: int,
) -> Line:
    return Line("copies", name, against, ours, peers, goal, 1, 15, moved=moved)


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
        0.5,
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
