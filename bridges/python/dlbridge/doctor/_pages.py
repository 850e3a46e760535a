"""The report as one self-contained HTML page, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any, TypeAlias

from dlbridge.doctor._advice import findings

Row: TypeAlias = dict[str, Any]

# How each outcome of a crossing is shown: a word, a colour for the page, a style for the terminal.
OUTCOMES = {
    "view": ("view", "#d6f5d6", "green"),
    "copy": ("copy", "#fff3c4", "yellow"),
    "refused": ("refused", "#e6e6e6", "dim"),
    "apart": ("apart", "#e6d6f5", "magenta"),
    "wrong values": ("WRONG", "#ffb3b3", "bold red"),
    "crash": ("CRASH", "#ff8080", "bold red"),
    "error": ("ERROR", "#ffb3b3", "bold red"),
}


def names(report: Row) -> list[str]:
    """The libraries that take part in crossings, in their order."""
    return [row["name"] for row in report["libraries"] if row["fault"] is None]


def matrix(report: Row, targets: list[str]) -> Iterator[tuple[str, list[Row | None]]]:
    """Each source, and what its crossings to the targets gave."""
    pairs = {(each["source"], each["target"]): each for each in report["crossings"]}
    for source in names(report):
        yield source, [pairs.get((source, target)) for target in targets]


def told(found: Row, time: str) -> str:
    """The outcome in a word, and behind it the microseconds, as ``time`` has them."""
    word, taken = OUTCOMES[found["outcome"]][0], found.get("microseconds")
    return word if taken is None else word + time.format(taken)


def _counted(kind: str) -> Callable[[Row], str]:
    """ "13 of 14": rules kept of those that could be asked; empty where it is none of that kind."""

    def counted(row: Row) -> str:
        if not any(each.get("kind") == kind for each in row["rules"]):
            return ""
        asked = [each["outcome"] for each in row["rules"] if each.get("kind", kind) == kind]
        return f"{asked.count('kept')} of {len(asked) - asked.count('not applicable')}"

    return counted


def _outcome_of(rule: str) -> Callable[[Row], str]:
    """yes, no, or empty where it was not asked."""

    def outcome(row: Row) -> str:
        asked = {each["rule"]: each["outcome"] for each in row["rules"]}.get(rule)
        return "" if asked in (None, "not applicable") else "yes" if asked == "kept" else "no"

    return outcome


# The columns of the table of libraries.
_LIBRARY: dict[str, Callable[[Row], str]] = {
    "library": lambda row: row["name"],
    "version": lambda row: row["version"],
    "producer": _counted("producer"),
    "consumer": _counted("consumer"),
    "table": _counted("exchange table"),
    "byte_offset": _outcome_of("20-byte-offset"),
    "read-only": _outcome_of("23-read-only"),
    "not usable": lambda row: row["fault"] or "",
}
LIBRARY_HEADS = list(_LIBRARY)
FINDING_HEADS = ["where", "what was found", "what to do"]


def library_cells(report: Row) -> list[list[str]]:
    return [[cell(row) for cell in _LIBRARY.values()] for row in report["libraries"]]


def title(report: Row) -> str:
    parts = [
        f"dlbridge {report['dlbridge']}, Python {report['python']}, NumPy {report['numpy']}, "
        f"{report['machine']}",
        f"companions: {', '.join(report['companions']) or 'none'}",
        *(f"{device}: {said}" for device, said in report["runtimes"].items()),
    ]
    if report["torch_road"]:
        parts.append(f"the road to torch is {report['torch_road']}")
    parts += [f"{name}={value}" for name, value in report["settings"].items()]
    return "; ".join(parts)


def as_json(report: Row) -> str:
    """All of it."""
    return json.dumps(report, indent=1)


def as_html(report: Row) -> str:
    """One page without anything outside itself, to attach to a bug report."""
    return f"""<!doctype html><html lang=en><meta charset=utf-8><title>dlbridge doctor</title>
<style>body{{font:14px sans-serif;margin:2em}}table{{border-collapse:collapse;margin:1em 0}}\
td,th{{border:1px solid #bbb;padding:3px 7px;text-align:left}}small{{color:#555}}</style>
<h1>dlbridge doctor</h1><p>{escape(title(report))}</p><h2>Libraries</h2>
{_html_table(LIBRARY_HEADS, library_cells(report))}
<h2>Crossings</h2><p>From the row to the column; point at a cell for its reason.</p>
{_html_matrix(report)}
<h2>What was found, and what to do</h2>
{_html_table(FINDING_HEADS, findings(report))}
</html>
"""


def _html_table(heads: list[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "\n" for row in rows)
    return f"<table><tr>{head}\n{body}</table>"


def _html_matrix(report: Row) -> str:
    columns = names(report)
    lines = ["<table><tr><th>" + "".join(f"<th>{escape(each)}" for each in columns)]
    for source, row in matrix(report, columns):
        cells = (_html_cell(found) if found else "<td>" for found in row)
        lines.append(f"<tr><th>{escape(source)}" + "".join(cells))
    return "\n".join([*lines, "</table>"])


def _html_cell(found: Row) -> str:
    colour = OUTCOMES[found["outcome"]][1]
    why = escape("; ".join([found.get("reason") or "", *found.get("notes", [])]))
    shown = told(found, "<br><small>{} µs</small>")
    return f'<td style="background:{colour}" title="{why}">{shown}'


def _markdown_table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *(line(row) for row in rows), ""]


def as_markdown(report: Row) -> str:
    """Tables for a manual."""
    columns = names(report)
    crossings = [
        [f"**{source}**", *(told(found, " {:.0f}") if found else "" for found in row)]
        for source, row in matrix(report, columns)
    ]
    lines = [
        title(report) + ".",
        "",
        *_markdown_table(LIBRARY_HEADS, library_cells(report)),
        "From the row to the column; the number is microseconds.",
        "",
        *_markdown_table(["", *columns], crossings),
    ]
    found = ([where, _short(what), advice] for where, what, advice in findings(report))
    lines += ["What was found, and what to do:", "", *_markdown_table(FINDING_HEADS, found)]
    return "\n".join(lines)


def _short(reason: str) -> str:
    """One line, with what Markdown would read as its own put aside."""
    line = " ".join(reason.split())[:200]
    return "`" + line.replace("`", "'") + "`"
