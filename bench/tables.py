"""Fills the tables of docs/performance.md with the figures of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from measure import Figure, shown

#: a row of `what | against | ours | peer | ratio | goal`, whose third cell is a time
MEASURED = re.compile(r"\d (ns|us|ms|s)$")


def named(words: str) -> str:
    """A row's words without what only one of page and bench has."""
    return re.sub(r"`|dlbridge\.|\([\d.]+ GB/s\)", "", words).strip()


def filled(page: str, figures: Iterable[Figure]) -> str:
    """The page with these figures in the rows of the same words; other rows stay."""
    known = {(named(each.name), named(each.against)): each for each in figures}
    lines = page.split("\n")
    for i, line in enumerate(lines):
        cells = line.strip("| ").split(" | ")
        if not line.startswith("| ") or len(cells) < 5 or not MEASURED.search(cells[2]):
            continue
        figure = known.get((named(cells[0]), named(cells[1])))
        if figure is not None:
            lines[i] = f"| {' | '.join([*cells[:2], *row(figure)])} |"
    return "\n".join(lines)


def row(figure: Figure) -> list[str]:
    goal = f"{figure.wanted}, {figure.verdict}" if figure.wanted else ""
    return [shown(figure.ours), shown(figure.peer), f"{figure.ratio:.2f}", goal]
