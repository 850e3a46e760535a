"""Small crossings against the libraries' own doors: one table, each line a ratio in the same run.

    make bench                              the table
    python bench/crossings.py --json FILE   also the figures, with the machine and the versions

Every line times ours and the peer's in turn, many short rounds, and gives the median of the rounds'
ratios with the spread of its middle half: the machine's noise meets both sides alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import timeit
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import dlbridge

try:
    import tvm_ffi
except ModuleNotFoundError:
    tvm_ffi = None


@dataclass
class Crossing:
    """One line: what is called, what it is held against, and the ratio that is the goal."""

    name: str
    ours: str
    peer: str
    goal: float
    road: str = "linked"


CROSSINGS = [
    Crossing("to_numpy(t), plain", "to_numpy(t)", "t.numpy()", 0.25),
    Crossing("to_numpy(t), plain, portable", "to_numpy(t)", "t.numpy()", 1.5, "portable"),
    Crossing("to_numpy(t), plain", "to_numpy(t)", "np.from_dlpack(t)", 0.08),
    Crossing("to_numpy(g), in a graph", "to_numpy(g)", "g.detach().cpu().numpy()", 0.15),
    Crossing("to_torch(a)", "to_torch(a)", "torch.from_numpy(a)", 0.55),
    Crossing("to_torch(a), portable", "to_torch(a)", "torch.from_numpy(a)", 1.0, "portable"),
    Crossing("to_torch(a)", "to_torch(a)", "torch.from_dlpack(a)", 0.22),
    Crossing("from_dlpack(t)", "from_dlpack(t)", "tvm_ffi.from_dlpack(t)", 0.6),
    Crossing("to_numpy(m), ManagedTensor", "to_numpy(m)", "np.from_dlpack(f)", 0.8),
    Crossing("np.asarray(m), ManagedTensor", "np.asarray(m)", "np.from_dlpack(f)", 0.8),
]


@dataclass
class Figure:
    """Nanoseconds a call, and the ratio of ours to the peer's."""

    name: str
    peer: str
    road: str
    ours_ns: float
    peer_ns: float
    ratio: float
    low: float
    high: float
    goal: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal


def names() -> dict[str, Any]:
    array = np.arange(32, dtype="f4").reshape(4, 8)
    tensor = torch.arange(32, dtype=torch.float32).reshape(4, 8)
    known: dict[str, Any] = {
        "np": np,
        "torch": torch,
        "a": array,
        "t": tensor,
        "g": tensor.clone().requires_grad_(),
        "m": dlbridge.from_dlpack(array, copy=True),
        "to_numpy": dlbridge.to_numpy,
        "to_torch": dlbridge.to_torch,
        "from_dlpack": dlbridge.from_dlpack,
    }
    if tvm_ffi is not None:
        known |= {"tvm_ffi": tvm_ffi, "f": tvm_ffi.from_dlpack(tensor)}
    return known


def measure(crossing: Crossing, known: dict[str, Any], rounds: int, calls: int) -> Figure:
    dlbridge._core.torch_road(crossing.road)
    ours = timeit.Timer(crossing.ours, globals=known)
    peer = timeit.Timer(crossing.peer, globals=known)
    ours.timeit(calls), peer.timeit(calls)  # warm both
    pairs = [(ours.timeit(calls), peer.timeit(calls)) for _ in range(rounds)]
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    return Figure(
        crossing.name,
        crossing.peer,
        crossing.road,
        statistics.median(mine for mine, _ in pairs) / calls * 1e9,
        statistics.median(theirs for _, theirs in pairs) / calls * 1e9,
        statistics.median(ratios),
        ratios[len(ratios) // 4],
        ratios[-1 - len(ratios) // 4],
        crossing.goal,
    )


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "tvm_ffi": getattr(tvm_ffi, "__version__", "none"),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def print_table(figures: list[Figure]) -> None:
    table = Table(title="small crossings, float32 (4, 8), medians")
    for column in ("crossing", "against", "ours ns", "peer ns", "ratio", "middle half", "goal", ""):
        table.add_column(column, justify="left" if column in ("crossing", "against") else "right")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.peer,
            f"{figure.ours_ns:.0f}",
            f"{figure.peer_ns:.0f}",
            f"{figure.ratio:.2f}",
            f"{figure.low:.2f}-{figure.high:.2f}",
            f"{figure.goal:.2f}",
            "met" if figure.met else "not met",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    known = names()
    roads = {"portable"}
    try:
        dlbridge._core.torch_road("linked")
        roads.add("linked")
    except RuntimeError as error:
        print(f"the linked road is not measured: {error}")
    figures = [
        measure(crossing, known, options.rounds, options.calls)
        for crossing in CROSSINGS
        if crossing.road in roads and (tvm_ffi is not None or "tvm_ffi" not in crossing.peer)
    ]
    print_table(figures)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {"machine": machine(), "figures": [asdict(f) for f in figures]}, file, indent=2
            )


if __name__ == "__main__":
    main()
