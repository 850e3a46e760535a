"""The command line of the doctor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dlbridge.doctor._examine import examine, faults
from dlbridge.doctor._pages import as_html, as_markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Examines the installed libraries. 1 where a crossing is wrong, crashes or leaks."""
    parser = argparse.ArgumentParser(
        prog="dlbridge doctor",
        description="Which of the installed array libraries conform to DLPack, and who reaches "
        "whom: as a view, as a copy, or refused with a reason.",
    )
    parser.add_argument("library", nargs="*", help="only these (otherwise all that are installed)")
    parser.add_argument("--json", metavar="FILE", help="the whole report; - for standard output")
    parser.add_argument("--html", metavar="FILE", help="one self-contained page")
    parser.add_argument("--markdown", metavar="FILE", help="tables for a manual")
    given = parser.parse_args(arguments)
    quiet = bool(given.json or given.html or given.markdown)
    if not quiet:
        try:
            import rich  # noqa: F401 asked before minutes are spent
        except ImportError:
            print(
                "dlbridge doctor prints its tables with rich, which is not installed; use "
                "pip install 'dlbridge[doctor]', or --json FILE, --html FILE, --markdown FILE",
                file=sys.stderr,
            )
            return 2
    report = examine(given.library, lambda what: print(what, file=sys.stderr, flush=True))
    text = json.dumps(report, indent=1)
    if given.json == "-":
        print(text)
    elif given.json:
        Path(given.json).write_text(text + "\n")
    if given.html:
        Path(given.html).write_text(as_html(report))
    if given.markdown:
        Path(given.markdown).write_text(as_markdown(report))
    if not quiet:
        from dlbridge.doctor._terminal import show

        show(report)
    found = faults(report)
    for fault in found:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if found else 0
