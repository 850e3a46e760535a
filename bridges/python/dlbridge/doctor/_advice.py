"""What is not as one would wish it, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Finding: TypeAlias = tuple[str, str, str]

_REPORT = "please report it to dlbridge, with the page of --html"
_APART = "keep them in processes of their own: dlbridge.share() takes tensors across"
_NO_FIX = "none by dlbridge: another library between the two may take it"
_ROAD = (
    "answers are the same, crossings slower: install a wheel of dlbridge with a companion for this "
    "torch, or build one by pip install --no-build-isolation . in dlbridge's sources"
)
_NO_RUNTIME = (
    "nothing where there is no such device; otherwise mend that, or build dlbridge where nvcc is: "
    "until then its memory goes to the host by its own library, where that copies"
)


def findings(report: dict[str, Any]) -> Iterator[Finding]:
    """Where, what, and what to do: the most pressing first."""
    yield from faults(report)
    road = report["torch_road"]
    if road and road != "linked":
        yield "torch", f"the road to it is {road}", _ROAD
    for device, said in report["runtimes"].items():
        if not said[0].isdigit():
            yield device, f"no runtime: {said}", _NO_RUNTIME
    for row in report["libraries"]:
        if row["fault"] is not None:
            advice = "import it without dlbridge: if that works, " + _REPORT
            yield _named(row), row["fault"], advice
    for each in report["crossings"]:
        if each["outcome"] in ("refused", "apart") and each["reason"]:
            fix = f"use {each['fix']}" if each.get("fix") else _NO_FIX
            advice = _APART if each["outcome"] == "apart" else fix
            yield _pair(each), f"{each['outcome']}: {each['reason']}", advice
    for row in report["libraries"]:
        for each in row["rules"]:
            if each["outcome"] in ("broken", "crash"):
                rule = f"{each['rule']}: {each['outcome']}: {each['reason']}"
                advice = f"{row['name']}'s to mend; mind it where you use {row['name']} directly"
                yield _named(row), rule, advice


def faults(report: dict[str, Any]) -> Iterator[Finding]:
    """What must not be: crossings with wrong values, crashes, errors without a reason, leaks."""
    for each in report["crossings"]:
        for part in (each, each.get("part") or {}):
            if part.get("outcome") in ("wrong values", "crash", "error"):
                yield _pair(each), f"{part['outcome']}: {part.get('reason', '')}", _REPORT
            if part.get("outcome") == "refused" and not part.get("reason"):
                yield _pair(each), "refused without a reason", _REPORT
        if each.get("leaked"):
            yield _pair(each), f"{each['leaked']} managed tensors leaked", _REPORT


def _pair(crossing: dict[str, Any]) -> str:
    return f"{crossing['source']} to {crossing['target']}"


def _named(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['version']}"
