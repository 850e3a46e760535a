"""The report on a terminal, by rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from dlbridge.doctor._pages import (
    LIBRARY_HEADS,
    broken_rules,
    by_pair,
    library_cells,
    names,
    timed,
    title,
)

_STYLES = {
    "view": "green",
    "copy": "yellow",
    "refused": "dim",
    "apart": "magenta",
    "wrong values": "bold red",
    "crash": "bold red",
    "error": "bold red",
}
_LETTERS = {
    "view": "view",
    "copy": "copy",
    "refused": "-",
    "apart": "apart",
    "wrong values": "WRONG",
    "crash": "CRASH",
    "error": "ERROR",
}


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Prints the tables."""
    console = console or Console()
    console.print(title(report))
    libraries = Table(title="rules of DLPack that are kept")
    for head in LIBRARY_HEADS:
        libraries.add_column(head, overflow="fold")
    for row in report["libraries"]:
        libraries.add_row(*library_cells(row))
    console.print(libraries)
    columns = names(report)
    pairs = by_pair(report)
    # As many columns as fit beside the names.
    width = max(1, (console.width - 20) // 9)
    for start in range(0, len(columns), width):
        some = columns[start : start + width]
        matrix = Table(title="from the row to the column: what it is, and microseconds")
        matrix.add_column("")
        for name in some:
            matrix.add_column(name[:12], justify="right", overflow="fold")
        for source in columns:
            matrix.add_row(source, *(_cell(pairs.get((source, target))) for target in some))
        console.print(matrix)
    for row in report["libraries"]:
        for rule, outcome, reason in broken_rules(row):
            console.print(
                f"{row['name']} {row['version']}: {rule}: {outcome}: {reason}", markup=False
            )


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    taken = f"\n{found['microseconds']:.1f}" if timed(found) else ""
    style = _STYLES[found["outcome"]]
    return f"[{style}]{_LETTERS[found['outcome']]}{taken}[/]"
