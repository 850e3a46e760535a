"""Crossings as values, and what some of them amount to."""

from __future__ import annotations

import ast
import linecache
import math
from typing import NamedTuple

import numpy as np

from dlbridge._core import dtype_triple
from dlbridge._plan import Plan


class Crossing(NamedTuple):
    """One crossing: who asked for it, what crossed, how, why, and how long it took.

    ``outcome`` is ``"view"``, ``"copy"`` or ``"refused"``. ``nbytes`` is the size of what crossed,
    ``bytes_copied`` what of it was copied. ``began`` and ``nanoseconds`` are a monotonic clock's;
    ``nanoseconds`` is None where nothing timed the crossing.
    """

    file: str
    line: int
    function: str
    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str
    result_dtype: str
    device: str
    outcome: str
    writable: bool
    nbytes: int
    bytes_copied: int
    steps: tuple[str, ...]
    reasons: tuple[str, ...]
    thread: int
    began: int
    nanoseconds: int | None

    @property
    def code(self) -> str:
        """The line's own text, where it can still be read."""
        return linecache.getline(self.file, self.line).strip()


class Line(NamedTuple):
    """All crossings of one kind that one line of code made."""

    first: Crossing
    times: int
    views: int
    copies: int
    refusals: int
    bytes_viewed: int
    bytes_copied: int
    nanoseconds: int


class Totals(NamedTuple):
    crossings: int
    views: int
    copies: int
    refusals: int
    bytes_viewed: int
    bytes_copied: int
    nanoseconds: int


def crossing_of(
    plan: Plan,
    file: str,
    line: int,
    function: str,
    began: int,
    nanoseconds: int | None,
    thread: int,
) -> Crossing:
    elements = 0 if plan.shape is None else math.prod(plan.shape)
    return Crossing(
        file,
        line,
        function,
        source=plan.source,
        target=plan.result,
        shape=plan.shape or (),
        dtype=plan.dtype,
        result_dtype=plan.result_dtype,
        device=plan.device,
        outcome="refused" if plan.refused else "view" if plan.view else "copy",
        writable=plan.writable,
        nbytes=(elements * _bits(plan.dtype) + 7) // 8,
        bytes_copied=0 if plan.refused else plan.bytes_copied,
        steps=plan.steps,
        reasons=plan.reasons,
        thread=thread,
        began=began,
        nanoseconds=nanoseconds,
    )


def _bits(dtype: str) -> int:
    try:
        _, bits, lanes = dtype_triple(dtype)
    except ValueError:
        return 8 * _itemsize_by_numpy(dtype)
    return bits * lanes


def _itemsize_by_numpy(dtype: str) -> int:
    """Of dates, texts, objects and structs, which come back as they are; of another's type 0."""
    fields = dtype.removeprefix("structured ")
    if dtype.startswith("StringDType("):
        dtype = fields = "T"  # its name, where NumPy has it
    try:
        return np.dtype(dtype if fields == dtype else ast.literal_eval(fields)).itemsize
    except (TypeError, ValueError, SyntaxError):
        return 0


def total_of(crossings: list[Crossing]) -> Totals:
    return Totals(len(crossings), *_sums_of(crossings))


def lines_of(crossings: list[Crossing]) -> list[Line]:
    """Grouped by line of code and kind: the most bytes copied first."""
    groups: dict[tuple[object, ...], list[Crossing]] = {}
    for each in crossings:
        kind = (each.file, each.line, each.source, each.target, each.outcome, each.reasons)
        groups.setdefault(kind, []).append(each)
    lines = [Line(group[0], len(group), *_sums_of(group)) for group in groups.values()]
    return sorted(
        lines, key=lambda line: (-line.bytes_copied, -line.bytes_viewed, -line.nanoseconds)
    )


def _sums_of(crossings: list[Crossing]) -> tuple[int, int, int, int, int, int]:
    """The fields that a Line and Totals have both, in their order."""
    outcomes = [each.outcome for each in crossings]
    viewed = sum(each.nbytes for each in crossings if each.outcome == "view")
    copied = sum(each.bytes_copied for each in crossings)
    spent = sum(each.nanoseconds or 0 for each in crossings)
    counts = (outcomes.count(name) for name in ("view", "copy", "refused"))
    return *counts, viewed, copied, spent  # type: ignore[return-value]
