"""The report on a terminal, by rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dlbridge.doctor._advice import findings
from dlbridge.doctor._examine import Say
from dlbridge.doctor._pages import (
    LIBRARY_HEADS,
    OUTCOMES,
    library_cells,
    matrix,
    names,
    title,
    told,
)


@contextmanager
def bar() -> Iterator[Say]:
    """Draws on standard error how far the examination is."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, done: progress.update(task, description=what, completed=done)
        progress.update(task, description="done", completed=1.0)


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Prints the tables."""
    console = console or Console()
    console.print(title(report))
    libraries = Table(title="rules of DLPack that are kept")
    for head in LIBRARY_HEADS:
        libraries.add_column(head, overflow="fold")
    for cells in library_cells(report):
        libraries.add_row(*cells)
    console.print(libraries)
    columns = names(report)
    # As many columns as fit beside the names.
    width = max(1, (console.width - 20) // 9)
    for start in range(0, len(columns), width):
        some = columns[start : start + width]
        table = Table(title="from the row to the column: what it is, and microseconds")
        table.add_column("")
        for name in some:
            table.add_column(name[:12], justify="right", overflow="fold")
        for source, row in matrix(report, some):
            table.add_row(source, *(_cell(found) if found else "" for found in row))
        console.print(table)
    for (where, advice), found in groupby(findings(report), key=itemgetter(0, 2)):
        lines = [f"{where}: {what}" for _, what, _ in found]
        console.print("\n".join([*lines, f"  -> {advice}"]), markup=False, highlight=False)


def _cell(found: dict[str, Any]) -> str:
    shown = "-" if found["outcome"] == "refused" else told(found, "\n{:.1f}")
    return f"[{OUTCOMES[found['outcome']][2]}]{shown}[/]"
