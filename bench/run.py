"""Everything that is measured, as one table: ours against the libraries' own doors.

make bench                                    the table
python bench/run.py --json FILE --plot FILE   also the figures with machine and versions, and a plot
python bench/run.py --page docs/performance.md   also puts them into the tables of the page
python bench/run.py --against FILE            held against the figures of an earlier run

Only some of it: python bench/run.py --only copies
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import timeit
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bulk
import columns
import crossings
import engines
import features
import processes
import tables
import torch
from measure import Figure, machine, measure, print_table
from rich.progress import track

import dlbridge

# A child says what importing added: seconds, and resident memory in KiB.
IMPORTED = """
import time, sys
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4
import numpy
before, memory = time.perf_counter(), resident()
import dlbridge
print(time.perf_counter() - before, resident() - memory)
"""


def cost_of_import() -> dict[str, float]:
    """What `import dlbridge` adds to `import numpy`: the median of 11 processes."""
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        # With compiled files, as an installed package has them; the first process makes them.
        here = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, "-c", IMPORTED]
        for _ in range(12):
            run = subprocess.run(command, check=True, capture_output=True, text=True, env=here)
            found.append(tuple(float(word) for word in run.stdout.split()))
    del found[0]
    seconds = sorted(each[0] for each in found)[5]
    kibibytes = sorted(each[1] for each in found)[5]
    return {"milliseconds": seconds * 1e3, "megabytes": kibibytes / 1024}


def cost_by_size() -> dict[str, list[float]]:
    """Nanoseconds of a view and of a copy by the bytes of the tensor, 1 B to 4 GiB."""
    sizes = [4**power for power in range(17)]
    found: dict[str, list[float]] = {"bytes": [float(size) for size in sizes]}
    for size in sizes:
        tensor = torch.ones(size, dtype=torch.uint8)
        known = {"t": tensor, "a": tensor.numpy(), "d": dlbridge, "torch": torch}
        for call in (
            "d.to_numpy(t)",
            "t.numpy()",
            "d.to_torch(a)",
            "torch.from_numpy(a)",
            "d.to_numpy(t, copy=True)",
            "t.clone().numpy()",
        ):
            copies = "copy" in call or "clone" in call
            calls = max(1, min(2000, 2**22 // size)) if copies else 2000
            rounds = 3 if copies and size > 2**28 else 15
            best = min(timeit.repeat(call, globals=known, number=calls, repeat=rounds)) / calls
            found.setdefault(call.removeprefix("d."), []).append(best * 1e9)
    return found


def plot(figures: list[Figure], by_size: dict[str, list[float]], path: str) -> None:
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    chart, (left, right) = pyplot.subplots(1, 2, figsize=(13, 8), layout="constrained")
    with_goal = [each for each in figures if each.goal is not None]
    places = range(len(with_goal))
    left.barh(places, [each.ratio for each in with_goal], color="tab:blue", label="measured")
    left.plot([each.goal for each in with_goal], places, "k|", markersize=9, label="goal")
    left.set_yticks(places, [f"{each.name} / {each.against}" for each in with_goal], fontsize=6)
    left.set_xscale("log")
    left.axvline(1.0, color="grey", linewidth=0.8)
    left.invert_yaxis()
    left.set_xlabel("time / the peer's time")
    left.legend(fontsize=8)
    for name, times in by_size.items():
        if name != "bytes":
            right.plot(by_size["bytes"], times, marker="o", markersize=3, label=name)
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xlabel("bytes of the tensor")
    right.set_ylabel("nanoseconds of a view or a copy")
    right.legend(fontsize=8)
    chart.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--against", metavar="FILE", type=Path, help="compare with the figures of an earlier run"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw them there (.svg, .png)")
    parser.add_argument("--page", type=Path, help="put them into the tables there")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where CMake built")
    parts = {
        "crossings": crossings,
        "copies": bulk,
        "features": features,
        "processes": processes,
        "columns": columns,
        "engines": engines,
    }
    parser.add_argument("--only", choices=list(parts))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    wanted = {options.only} if options.only else set(parts)
    found: dict[str, Any] = {"machine": machine()}
    earlier = []
    if options.against:
        told = json.loads(options.against.read_text(encoding="utf-8"))
        earlier = [Figure(**each) for each in told["figures"]]
    figures: list[Figure] = []
    for name, module in parts.items():
        if name in wanted:
            figures += [measure(each) for each in track(module.lines(), name)]
        if name == "crossings" and name in wanted:
            figures += crossings.compiled(options.build)
        if name == "copies" and name in wanted:
            figures += bulk.scaling()
    print_table(figures, earlier)
    found["figures"] = [asdict(each) for each in figures]
    load = found["machine"]["load"]
    print(f"load of the machine: {load} before, of {os.cpu_count()} processors")
    if "copies" in wanted:
        found["memory_bandwidth"] = bulk.memory_bandwidth()
        print(f"memory: {found['memory_bandwidth'] / 1e9:.1f} GB/s read and written, by torch")
        for each in figures:
            if each.moved:
                share = each.moved / each.best / found["memory_bandwidth"]  # best against best
                print(f"  {share:4.0%} of it: {each.name}")
    if "crossings" in wanted:
        cost = found["import"] = cost_of_import()
        print(
            f"import dlbridge adds {cost['milliseconds']:.1f} ms (goal 5) and "
            f"{cost['megabytes']:.1f} MB (goal 3) to import numpy"
        )
    missed = [each for each in figures if each.verdict == "not met"]
    print(f"{sum(each.verdict == 'met' for each in figures)} goals met, {len(missed)} not")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(tables.filled(page, figures), encoding="utf-8")
    if options.plot:
        plot(figures, cost_by_size(), options.plot)


if __name__ == "__main__":
    main()
