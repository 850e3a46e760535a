"""Millions of small crossings, and what each leaves behind: a slope in bytes, not a look.

python tests/load/steady.py --crossings 50000000

All kinds take turns, so that what the process holds is a line over the crossings of each of them.
Its slope is taken by least squares, for the memory that the system sees (resident), for what malloc
has handed out, and for the blocks of Python's own allocator.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kinds import Kind, kinds, the_same

import dlbridge

PAGE = os.sysconf("SC_PAGE_SIZE")
ROUNDS = 10
WARM_UP = 3


@dataclass(frozen=True)
class Bound:
    """What may be held after n crossings: so much each, and caches that fill up once."""

    each: float
    once: int
    either_way: bool = False

    def slope(self, crossings: int) -> float:
        return self.each + self.once / crossings


# The smallest block is 16 bytes of Python's and 32 of malloc's; resident memory comes by pages. A
# None that is returned without a reference of its own takes one of them away.
BOUNDS = {
    "blocks": Bound(0.005, 500),
    "malloc": Bound(0.1, 16384),
    "resident": Bound(0.01, 1 << 20),
    "None": Bound(0.005, 500, either_way=True),
}
UNITS = {
    "blocks": "blocks of Python's",
    "malloc": "bytes, malloc",
    "resident": "bytes, resident",
    "None": "references to None",
}


class Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2() gives; ``uordblks`` and ``hblkhd`` are bytes in use."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_counter() -> Callable[[], int] | None:
    """Bytes that malloc has handed out, where it can be asked."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    ask.restype = Mallinfo

    def count() -> int:
        info = ask()
        return int(info.uordblks + info.hblkhd)

    return count


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@dataclass
class Line:
    """Points of (crossings made so far, something held by then)."""

    crossings: list[int] = field(default_factory=lambda: [0])
    held: list[int] = field(default_factory=lambda: [0])

    def add(self, crossings: int, change: int) -> None:
        self.crossings.append(self.crossings[-1] + crossings)
        self.held.append(self.held[-1] + change)

    def slope(self) -> float:
        return statistics.linear_regression(self.crossings, self.held).slope


def count_of(kind: Kind, crossings: int, everything: list[Kind]) -> int:
    """How many of this kind a round has."""
    share = kind.share / sum(each.share for each in everything)
    return max(round(crossings * share / ROUNDS), 1)


Counters = dict[str, Callable[[], int]]


def look(counters: Counters, found: array[int]) -> None:
    """Without garbage and without Python's free lists, and by way of an array: numbers kept as
    objects would be counted themselves."""
    gc.collect()
    for i, counter in enumerate(counters.values()):
        found[i] = counter()


def turn(kind: Kind, count: int, counters: Counters) -> list[int]:
    """By how much each counter is higher after so many crossings of a kind."""
    before, after = array("q", bytes(8 * len(counters))), array("q", bytes(8 * len(counters)))
    look(counters, before)
    kind.run(count)
    look(counters, after)
    return [late - early for early, late in zip(before, after, strict=True)]


def measure(everything: list[Kind], crossings: int) -> tuple[Line, dict[str, dict[str, Line]]]:
    """Resident memory over all crossings, and the other counters for each kind's own."""
    counters: Counters = {
        "blocks": sys.getallocatedblocks,
        "None": lambda: sys.getrefcount(None),
    }
    malloc = malloc_counter()
    if malloc is not None:
        counters["malloc"] = malloc
    counts = {kind.name: count_of(kind, crossings, everything) for kind in everything}
    gc.freeze()
    for _ in range(WARM_UP):  # what a first time leaves behind it leaves once
        for kind in everything:
            turn(kind, min(counts[kind.name], 1000), counters)
    lines = {kind.name: {name: Line() for name in counters} for kind in everything}
    overall = Line()
    gc.collect()
    gc.freeze()
    at_start = dlbridge._core.live_managed_tensors()
    before_round = resident()
    for _ in range(ROUNDS):
        for kind in everything:
            count = counts[kind.name]
            changes = turn(kind, count, counters)
            for line, change in zip(lines[kind.name].values(), changes, strict=True):
                line.add(count, change)
        now = resident()
        overall.add(sum(counts.values()), now - before_round)
        before_round = now
    left = dlbridge._core.live_managed_tensors() - at_start
    if left:
        raise SystemExit(f"{left} managed tensors are left over")
    return overall, lines


def leaking() -> Kind:
    """A kind that does leave something behind, to see that it shows."""
    kept: list[object] = []
    return Kind("leaking", lambda source: kept.append(object()), the_same(None), 20, None)


def judged(what: str, line: Line) -> tuple[str, bool]:
    """The slope in words, and whether it is over its bound."""
    slope, bound = line.slope(), BOUNDS[what].slope(line.crossings[-1])
    over = slope > bound or (BOUNDS[what].either_way and -slope > bound)
    return f"{slope:9.5f} {UNITS[what]} (at most {bound:.3f})", over


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crossings", type=int, default=50_000_000)
    parser.add_argument("--leak", action="store_true", help="add a kind that leaks")
    options = parser.parse_args()
    everything = kinds() + ([leaking()] if options.leak else [])
    begun = time.monotonic()
    overall, lines = measure(everything, options.crossings)
    bad = 0
    for name, found in lines.items():
        words, over = zip(*(judged(what, line) for what, line in found.items()), strict=True)
        bad += any(over)
        print(f"{name:38}", *words, "LEAKS" if any(over) else "")
    words_of_all, over_all = judged("resident", overall)
    print(
        f"{overall.crossings[-1]} crossings of {len(everything)} kinds in "
        f"{time.monotonic() - begun:.0f} s, each: {words_of_all}{' LEAKS' if over_all else ''}"
    )
    return 1 if bad or over_all else 0


if __name__ == "__main__":
    sys.exit(main())
