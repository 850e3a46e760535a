"""How everything here is measured: ours and its peer in turn, many short rounds, in one run.

The machine's noise meets both sides alike, so what counts is the ratio of each round; the median of
these is given, with the spread of their middle half.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import timeit
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Work = str | Callable[[], Any]


@dataclass
class Line:
    """What is called, what it is held against, and the ratio of the two times that is the goal, or
    the seconds of ours, ``most``.

    Work is a statement over ``names``, or a function. Of several peers the fastest counts, round by
    round. ``moved`` is the bytes that one call reads and writes, where that is the point.
    """

    group: str
    name: str
    against: str
    ours: Work
    peers: Work | tuple[Work, ...]
    goal: float | None = None
    calls: int = 2000
    rounds: int = 31
    names: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[], Any] | None = None
    moved: int | None = None
    most: float | None = None


@dataclass
class Figure:
    """Seconds a call, medians, and our best; ratios of ours to the peer's."""

    group: str
    name: str
    against: str
    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    goal: float | None
    moved: int | None = None
    best: float = 0.0
    most: float | None = None

    @property
    def width(self) -> float:
        """Of the middle half, as a share of the ratio."""
        return (self.high - self.low) / self.ratio

    @property
    def wanted(self) -> str:
        if self.most is not None:
            return shown(self.most)
        return "" if self.goal is None else f"{self.goal:.3g}"

    @property
    def verdict(self) -> str:
        if self.most is not None:
            return "met" if self.ours <= self.most else "not met"
        if self.goal is None:
            return ""
        return "met" if self.ratio <= self.goal else "not met"


#: A middle half that is wider than this share of the ratio says more of the machine than of us.
WIDE = 0.2


def measure(line: Line) -> Figure:
    """Measured again, twice at most, where the goal was missed or the rounds differ much: the
    steadiest counts, whatever its ratio is."""
    if line.before is not None:
        line.before()
    peers = line.peers if isinstance(line.peers, tuple) else (line.peers,)
    known = dict(line.names)
    ours = timeit.Timer(line.ours, globals=known)
    others = [timeit.Timer(peer, globals=known) for peer in peers]
    for timer in (ours, *others):
        timer.timeit(max(line.calls // 4, 1))
    found: list[Figure] = []
    for _ in range(3):
        rounds = []
        for _ in range(line.rounds):
            mine = ours.timeit(line.calls)
            rounds.append((mine, min(timer.timeit(line.calls) for timer in others)))
        found.append(figure(line, rounds, line.calls))
        if found[-1].verdict != "not met" and found[-1].width <= WIDE:
            break
    return min(found, key=lambda each: each.width)


def figure(line: Line, rounds: Iterable[tuple[float, float]], calls: int = 1) -> Figure:
    """The figure of pairs of times, ours first, each of ``calls`` calls."""
    pairs = list(rounds)
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    quarter = len(ratios) // 4
    return Figure(
        line.group,
        line.name,
        line.against,
        statistics.median(mine for mine, _ in pairs) / calls,
        statistics.median(theirs for _, theirs in pairs) / calls,
        statistics.median(ratios),
        ratios[quarter],
        ratios[-1 - quarter],
        line.goal,
        line.moved,
        min(mine for mine, _ in pairs) / calls,
        line.most,
    )


def shown(seconds: float) -> str:
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 10_000 or unit == "ms":
            number = seconds * scale
            return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    raise AssertionError


def changed(now: Figure, before: Figure) -> str:
    """Whether it is slower or faster than before by more than either's noise."""
    if now.low > before.high:
        return "slower"
    return "faster" if now.high < before.low else ""


def print_table(figures: Iterable[Figure], earlier: Iterable[Figure] = ()) -> None:
    """With columns for an earlier run, where there is one."""
    before = {(each.name, each.against): each for each in earlier}
    table = Table(title="ours / peer, medians of rounds measured in turn")
    left = ("crossing", "against")
    more = ("before", "") if before else ()
    for column in (*left, "ours", "peer", "ratio", "middle half", "goal", "", *more):
        table.add_column(column, justify="left" if column in left else "right")
    group = None
    for each in figures:
        if each.group != group:
            table.add_section()
            table.add_row(f"[bold]{each.group}[/bold]")
            group = each.group
        then = before.get((each.name, each.against))
        speed = f" ({each.moved / each.ours / 1e9:.1f} GB/s)" if each.moved else ""
        table.add_row(
            each.name + speed,
            each.against,
            shown(each.ours),
            shown(each.peer),
            f"{each.ratio:.2f}",
            f"{each.low:.2f}-{each.high:.2f}",
            each.wanted,
            each.verdict,
            *((f"{then.ratio:.2f}", changed(each, then)) if then else ()),
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def machine() -> dict[str, Any]:
    """What the figures depend on: the processor and the versions."""
    versions = {}
    for package in ("numpy", "torch", "apache-tvm-ffi", "nanobind", "pybind11", "dlbridge"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {
        "processor": processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }
