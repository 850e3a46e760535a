"""Copies between a GPU and the host, against torch's and CuPy's own: `make bench-gpu`.

The bus is measured first, both ways, with pinned memory and cudaMemcpyAsync as torch calls it;
every line gives its share of that. Peers of a line are all measured; the best of them counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Line, machine, measure, print_table

import dlbridge

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
SIZES = (KB, 4 * KB, 64 * KB, MB, 4 * MB, 16 * MB, 64 * MB, 256 * MB, GB, 4 * GB)


def named(size: int) -> str:
    for unit, name in ((GB, "GB"), (MB, "MB"), (KB, "KB")):
        if size >= unit:
            return f"{size // unit} {name}"
    raise AssertionError


def bus() -> dict[str, float]:
    """Bytes a second that pinned memory of 256 MB is moved at, at best."""
    there = torch.empty(256 * MB, dtype=torch.uint8, device="cuda")
    here = torch.empty(256 * MB, dtype=torch.uint8, pin_memory=True)
    found = {}
    for name, to, source in (("to_host", here, there), ("to_device", there, here)):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        best = 1e9
        for _ in range(12):
            begin.record()
            to.copy_(source, non_blocking=True)
            end.record()
            end.synchronize()
            best = min(best, begin.elapsed_time(end) / 1e3)
        found[name] = 256 * MB / best
    return found


def line(name: str, against: str, ours: Any, peers: Any, size: int, goal: float | None) -> Line:
    calls = max(1, min(300, 64 * MB // max(size, KB)))
    rounds = 15 if size < GB else 5
    return Line("device", name, against, ours, peers, goal, calls, rounds, moved=size)


def to_pinned(x: torch.Tensor, out: torch.Tensor) -> Callable[[], None]:
    def work() -> None:
        out.copy_(x, non_blocking=True)
        torch.cuda.current_stream().synchronize()

    return work


def contiguous(size: int) -> Iterator[Line]:
    x = torch.randint(0, 255, (size,), dtype=torch.uint8, device="cuda")
    goal = 1.0 if size <= 4 * KB else 0.333 if size >= 64 * MB else None
    yield line(
        f"to_numpy(x), {named(size)}", "x.cpu().numpy()",
        lambda: dlbridge.to_numpy(x), lambda: x.cpu().numpy(), size, goal,
    )  # fmt: skip
    out = dlbridge.pinned_empty(size, "uint8")
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    peers: list[Callable[[], Any]] = [to_pinned(x, pinned)]
    try:
        cupy: Any = importlib.import_module("cupy")
        there = cupy.from_dlpack(x)
        host = pinned.numpy()
        peers.append(lambda: there.get(out=host))
    except ImportError:
        pass
    yield line(
        f"to_numpy(x, out=pinned), {named(size)}", "torch to pinned, CuPy .get(out=)",
        lambda: dlbridge.to_numpy(x, out=out), tuple(peers), size, None,
    )  # fmt: skip
    if size >= MB:
        ordinary = np.zeros(size, np.uint8)
        into = torch.from_numpy(ordinary)
        yield line(
            f"to_numpy(x, out=array), {named(size)}", "torch.from_numpy(array).copy_(x)",
            lambda: dlbridge.to_numpy(x, out=ordinary), lambda: into.copy_(x), size, None,
        )  # fmt: skip
    array = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    tensor = torch.from_numpy(array)

    def send() -> None:
        dlbridge.to_torch(array, device="cuda")
        torch.cuda.current_stream().synchronize()

    def sent_by_torch() -> None:
        tensor.to("cuda")
        torch.cuda.current_stream().synchronize()

    yield line(
        f"to_torch(a, device='cuda'), {named(size)}", "torch.from_numpy(a).to('cuda')",
        send, sent_by_torch, size, None,
    )  # fmt: skip


def strided() -> Iterator[Line]:
    x = torch.rand(8192, 8192, device="cuda")
    z = torch.randn(4096, 4096, dtype=torch.complex64, device="cuda")
    d = torch.rand(4096, 4096, dtype=torch.float64, device="cuda")
    against = "x.contiguous().cpu().numpy()"
    for name, view in (("transposed", x.T), ("columns", x[:, :4096]), ("every other", x[::2, ::2])):
        yield line(
            f"to_numpy, {name} of 8192 x 8192", against,
            lambda v=view: dlbridge.to_numpy(v), lambda v=view: v.contiguous().cpu().numpy(),
            view.numel() * 4, 0.5,
        )  # fmt: skip
    yield line(
        "to_numpy, conjugate complex64", "x.resolve_conj().cpu().numpy()",
        lambda: dlbridge.to_numpy(z.conj()), lambda: z.conj().resolve_conj().cpu().numpy(),
        z.numel() * 8, 0.5,
    )  # fmt: skip
    yield line(
        "to_numpy(dtype='float32') of float64", "x.cpu().numpy().astype('f4')",
        lambda: dlbridge.to_numpy(d, dtype="float32"), lambda: d.cpu().numpy().astype("f4"),
        d.numel() * 4, 0.5,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--most", type=int, default=4 * GB, help="the largest copy, in bytes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no figures: torch finds no CUDA device")
        return
    peak = bus()
    lines: list[Callable[[], Iterator[Line]]] = [strided]
    lines += [lambda size=size: contiguous(size) for size in SIZES if size <= options.most]
    figures = [measure(each) for make in lines for each in make()]
    print_table(figures)
    down, up = peak["to_host"] / 1e9, peak["to_device"] / 1e9
    print(f"bus: {down:.1f} GB/s to the host, {up:.1f} GB/s to the device")
    for each in figures:
        if each.moved and each.moved >= MB:
            way = "to_device" if "device=" in each.name else "to_host"
            print(f"  {each.moved / each.ours / peak[way]:4.0%} of it: {each.name}")
    if options.json:
        found = {
            "device": torch.cuda.get_device_name(),
            "machine": machine(),
            "bus": peak,
            "figures": [asdict(each) for each in figures],
        }
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
