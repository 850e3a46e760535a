"""Crossings as text, as a rich table, as HTML, and as a trace for Perfetto."""

from __future__ import annotations

import html
import io
import json
import os
from typing import Any

from dlbridge.ledger.crossings import Crossing, Line, lines_of, total_of

_COLUMNS = ("line", "code", "from → to", "shape", "times", "how", "copied", "viewed", "time", "why")
_NUMBERS = frozenset({"times", "copied", "viewed", "time"})


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count:,} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:,.1f} {unit}"


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _time(nanoseconds: int) -> str:
    if nanoseconds < 10_000:
        return f"{nanoseconds} ns"
    if nanoseconds < 10_000_000:
        return f"{nanoseconds / 1e3:,.0f} µs"
    return f"{nanoseconds / 1e6:,.0f} ms"


def _types(crossing: Crossing) -> str:
    source, target = f"{crossing.source} {crossing.dtype}", crossing.target
    if crossing.result_dtype != crossing.dtype:
        target += f" {crossing.result_dtype}"
    device = "" if crossing.device in ("cpu", "") else f" on {crossing.device}"
    return f"{source}{device} → {target}"


def _outcome(crossing: Crossing) -> str:
    if crossing.outcome == "refused" or crossing.writable:
        return crossing.outcome
    return f"{crossing.outcome}, read-only"


def _cells(line: Line) -> tuple[str, ...]:
    first = line.first
    return (
        f"{os.path.basename(first.file)}:{first.line}",
        first.code,
        _types(first),
        " × ".join(map(str, first.shape)) or "()",
        f"{line.times:,}",
        _outcome(first),
        _bytes(line.bytes_copied) if line.copies else "",
        _bytes(line.bytes_viewed) if line.views else "",
        _time(line.nanoseconds),
        "; ".join(first.reasons),
    )


def _summary(crossings: list[Crossing]) -> str:
    total = total_of(crossings)
    return (
        f"{_count(total.crossings, 'crossing')}: "
        f"{_count(total.views, 'view')} of {_bytes(total.bytes_viewed)}, "
        f"{_count(total.copies, 'copy', 'copies')} of {_bytes(total.bytes_copied)}, "
        f"{total.refusals:,} refused; "
        f"{_time(total.nanoseconds)}"
    )


def rich_of(crossings: list[Crossing]) -> Any:
    """A rich.table.Table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="What crossed",
        caption=_summary(crossings),
        box=box.SIMPLE_HEAD,
        title_style="bold",
        caption_justify="left",
    )
    colours = {"copy": "yellow", "refused": "red", "view": "green"}
    for name in _COLUMNS:
        # The name of the line and the figures are never broken; the words give way.
        whole = name in ("line", *_NUMBERS)
        justify: Any = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=justify, no_wrap=whole, overflow="fold")
    for line in lines_of(crossings):
        cells: list[Any] = [Text(cell) for cell in _cells(line)]
        cells[_COLUMNS.index("how")].stylize(colours[line.first.outcome])
        table.add_row(*cells)
    return table


def _plain(crossings: list[Crossing]) -> str:
    rows = [_COLUMNS, *(_cells(line) for line in lines_of(crossings))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, _summary(crossings)])


def text_of(crossings: list[Crossing]) -> str:
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return _plain(crossings)
    terminal = Console()
    width = terminal.width if terminal.is_terminal else 150
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal.is_terminal, highlight=False
    )
    console.print(rich_of(crossings))
    lines = str(console.file.getvalue()).split("\n")  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What crossed</title><style>
.dlbridge {{ border-collapse: collapse; font: 13px/1.5 system-ui, sans-serif; }}
.dlbridge th, .dlbridge td {{ padding: 2px 10px; text-align: left; vertical-align: top; }}
.dlbridge th {{ border-bottom: 2px solid #999; }}
.dlbridge td {{ border-bottom: 1px solid #ddd; }}
.dlbridge .number {{ text-align: right; white-space: nowrap; }}
.dlbridge caption {{ caption-side: bottom; text-align: left; padding: 6px 10px; }}
.dlbridge .copy {{ color: #a60; }} .dlbridge .view {{ color: #080; }}
.dlbridge .refused {{ color: #b00; }}
</style></head><body>
<table class="dlbridge"><caption>{summary}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table>
</body></html>
"""


def html_of(crossings: list[Crossing]) -> str:
    def cell(name: str, text: str, outcome: str = "") -> str:
        kind = "number" if name in _NUMBERS else outcome if name == "how" else ""
        tag = "td" if outcome else "th"
        attribute = f' class="{kind}"' if kind else ""
        shown = f"<code>{html.escape(text)}</code>" if name == "code" and outcome else ""
        return f"<{tag}{attribute}>{shown or html.escape(text)}</{tag}>"

    rows = []
    for line in lines_of(crossings):
        cells = zip(_COLUMNS, _cells(line), strict=True)
        rows.append("".join(cell(name, text, line.first.outcome) for name, text in cells))
    return _PAGE.format(
        summary=html.escape(_summary(crossings)),
        head="".join(cell(name, name) for name in _COLUMNS),
        body="\n".join(f"<tr>{row}</tr>" for row in rows),
    )


def chrome_trace_of(crossings: list[Crossing]) -> str:
    """The Trace Event Format: a slice for each crossing, and the bytes copied so far."""
    events: list[dict[str, Any]] = []

    def tell(kind: str, name: str, arguments: dict[str, Any], **fields: object) -> None:
        event = {"name": name, "ph": kind, "pid": os.getpid(), **fields, "args": arguments}
        events.append(event)

    for number, thread in enumerate(dict.fromkeys(each.thread for each in crossings)):
        tell("M", "thread_name", {"name": f"crossings, thread {number}"}, tid=thread)
    start = min((each.began for each in crossings), default=0)
    copied = 0
    for each in sorted(crossings, key=lambda crossing: crossing.began):
        begin = (each.began - start) / 1000  # microseconds
        spent = (each.nanoseconds or 0) / 1000
        facts = {
            "line": f"{each.file}:{each.line}",
            "code": each.code,
            "shape": str(each.shape),
            "dtype": each.dtype,
            "bytes": each.nbytes,
            "bytes copied": each.bytes_copied,
            "why": "; ".join(each.reasons),
        }
        name = f"{each.outcome}: {each.source} → {each.target}"
        tell("X", name, facts, cat=each.outcome, ts=begin, dur=spent, tid=each.thread)
        if each.bytes_copied:
            copied += each.bytes_copied
            tell("C", "bytes copied", {"bytes": copied}, ts=begin + spent)
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events}, indent=1)
