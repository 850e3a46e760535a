"""The command line of the doctor."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dlbridge.doctor._advice import faults
from dlbridge.doctor._examine import Say, examine
from dlbridge.doctor._pages import as_html, as_json, as_markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Examines the installed libraries. 1 where a crossing is wrong, crashes or leaks."""
    parser = argparse.ArgumentParser(
        prog="dlbridge doctor",
        description="Which of the installed array libraries conform to DLPack, and who reaches "
        "whom: as a view, as a copy, or refused with a reason.",
    )
    parser.add_argument("library", nargs="*", help="only these (otherwise all that are installed)")
    parser.add_argument(
        "--json", metavar="FILE", help="the whole report (- for standard output, here and below)"
    )
    parser.add_argument("--html", metavar="FILE", help="one self-contained page")
    parser.add_argument("--markdown", metavar="FILE", help="tables for a manual")
    given = parser.parse_args(arguments)
    quiet = bool(given.json or given.html or given.markdown)
    progress: AbstractContextManager[Say] = nullcontext(
        lambda what, done: print(what, file=sys.stderr, flush=True)
    )
    try:
        from dlbridge.doctor import _terminal

        if sys.stderr.isatty():
            progress = _terminal.bar()
    except ImportError:  # asked before minutes are spent
        if not quiet:
            print(
                "dlbridge doctor prints its tables with rich, which is not installed; use "
                "pip install 'dlbridge[doctor]', or --json FILE, --html FILE, --markdown FILE",
                file=sys.stderr,
            )
            return 2
    with progress as say:
        report = examine(given.library, say)
    forms = {"json": as_json, "html": as_html, "markdown": as_markdown}
    for name, form in forms.items():
        file = getattr(given, name)
        if file == "-":
            print(form(report))
        elif file:
            Path(file).write_text(form(report) + "\n")
    if not quiet:
        _terminal.show(report)
    found = list(faults(report))
    for where, what, advice in found:
        print(f"fault: {where}: {what}; {advice}", file=sys.stderr)
    return 1 if found else 0
