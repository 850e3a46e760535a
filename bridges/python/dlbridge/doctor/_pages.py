"""The report as one self-contained HTML page, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

# How each outcome of a crossing is shown: a word, and a colour for the page.
OUTCOMES = {
    "view": ("view", "#d6f5d6"),
    "copy": ("copy", "#fff3c4"),
    "refused": ("refused", "#e6e6e6"),
    "apart": ("apart", "#e6d6f5"),
    "wrong values": ("WRONG", "#ffb3b3"),
    "crash": ("CRASH", "#ff8080"),
    "error": ("ERROR", "#ffb3b3"),
}


def names(report: dict[str, Any]) -> list[str]:
    """The libraries that take part in crossings, in their order."""
    return [row["name"] for row in report["libraries"] if row["fault"] is None]


def by_pair(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["source"], each["target"]): each for each in report["crossings"]}


def counted(row: dict[str, Any], kind: str) -> str:
    """ "13 of 14": rules kept of those that could be asked; empty where it is none of that kind."""
    asked = [each for each in row["rules"] if each.get("kind", kind) == kind]
    asked = [each for each in asked if each["outcome"] != "not applicable"]
    if not any(each.get("kind") == kind for each in row["rules"]):
        return ""
    kept = sum(each["outcome"] == "kept" for each in asked)
    return f"{kept} of {len(asked)}"


def rule_outcome(row: dict[str, Any], rule: str) -> str:
    """yes, no, or empty where it was not asked."""
    for each in row["rules"]:
        if each["rule"] == rule and each["outcome"] != "not applicable":
            return "yes" if each["outcome"] == "kept" else "no"
    return ""


def broken_rules(row: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The rule, whether it is broken or a crash, and the reason."""
    for each in row["rules"]:
        if each["outcome"] in ("broken", "crash"):
            yield each["rule"], each["outcome"], each["reason"]


def library_cells(row: dict[str, Any]) -> list[str]:
    """One library, for the table of libraries; LIBRARY_HEADS names the columns."""
    return [
        row["name"],
        row["version"],
        counted(row, "producer"),
        counted(row, "consumer"),
        counted(row, "exchange table"),
        rule_outcome(row, "20-byte-offset"),
        rule_outcome(row, "23-read-only"),
        row["fault"] or "",
    ]


LIBRARY_HEADS = [
    "library",
    "version",
    "producer",
    "consumer",
    "table",
    "byte_offset",
    "read-only",
    "not usable",
]


def title(report: dict[str, Any]) -> str:
    return (
        f"dlbridge {report['dlbridge']}, Python {report['python']}, NumPy {report['numpy']}, "
        f"{report['machine']}"
    )


def as_html(report: dict[str, Any]) -> str:
    """One page without anything outside itself, to attach to a bug report."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>dlbridge doctor</title>",
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
        "td,th{border:1px solid #bbb;padding:3px 7px;text-align:left}small{color:#555}</style>",
        f"<h1>dlbridge doctor</h1><p>{escape(title(report))}</p><h2>Libraries</h2>",
        _html_table(LIBRARY_HEADS, [library_cells(row) for row in report["libraries"]]),
        "<h2>Crossings</h2><p>From the row to the column; point at a cell for its reason.</p>",
        _html_matrix(report),
        "<h2>Rules that are broken</h2>",
        _html_table(
            ["library", "rule", "", "reason"],
            [
                [f"{row['name']} {row['version']}", *finding]
                for row in report["libraries"]
                for finding in broken_rules(row)
            ],
        ),
        "</html>\n",
    ]
    return "\n".join(parts)


def _html_table(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "\n" for row in rows)
    return f"<table><tr>{head}\n{body}</table>"


def _html_matrix(report: dict[str, Any]) -> str:
    columns = names(report)
    pairs = by_pair(report)
    lines = ["<table><tr><th>" + "".join(f"<th>{escape(each)}" for each in columns)]
    for source in columns:
        cells = [f"<tr><th>{escape(source)}"]
        for target in columns:
            found = pairs.get((source, target))
            if found is None:
                cells.append("<td>")
                continue
            word, colour = OUTCOMES[found["outcome"]]
            taken = f"<br><small>{found['microseconds']} µs</small>" if timed(found) else ""
            why = escape("; ".join([found.get("reason") or "", *found.get("notes", [])]))
            cells.append(f'<td style="background:{colour}" title="{why}">{word}{taken}')
        lines.append("".join(cells))
    return "\n".join([*lines, "</table>"])


def timed(found: dict[str, Any]) -> bool:
    return found.get("microseconds") is not None


def _markdown_table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *(line(row) for row in rows), ""]


def as_markdown(report: dict[str, Any]) -> str:
    """Tables for a manual."""
    lines = [title(report) + ".", ""]
    lines += _markdown_table(LIBRARY_HEADS, (library_cells(row) for row in report["libraries"]))
    columns = names(report)
    pairs = by_pair(report)
    rows = []
    for source in columns:
        row = [f"**{source}**"]
        for target in columns:
            found = pairs.get((source, target))
            word = "" if found is None else OUTCOMES[found["outcome"]][0]
            if found is not None and timed(found):
                word += f" {found['microseconds']:.0f}"
            row.append(word)
        rows.append(row)
    lines += ["From the row to the column; the number is microseconds.", ""]
    lines += _markdown_table(["", *columns], rows)
    reasons = sorted(
        {
            (each["source"], each["target"], each["reason"])
            for each in report["crossings"]
            if each["outcome"] in ("refused", "apart")
        }
    )
    if reasons:
        lines += ["Refused, or apart:", ""]
        lines += [f"- {source} to {target}: {reason}" for source, target, reason in reasons]
        lines.append("")
    lines += ["Rules that are broken:", ""]
    lines += _markdown_table(
        ["library", "rule", "", "reason"],
        (
            [f"{row['name']} {row['version']}", rule, outcome, _short(reason)]
            for row in report["libraries"]
            for rule, outcome, reason in broken_rules(row)
        ),
    )
    return "\n".join(lines)


def _short(reason: str) -> str:
    """One line, with what Markdown would read as its own put aside."""
    line = " ".join(reason.split())[:200]
    return "`" + line.replace("`", "'") + "`"
