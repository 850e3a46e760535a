"""Runs a build by ninja and draws how far it is: python progress.py COMMAND ARGUMENT ...

Where nobody looks, as in a log, ninja's own lines say the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def main() -> int:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        return subprocess.call(sys.argv[1:])
    columns = (
        TextColumn("building"),
        BarColumn(40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    status = os.environ | {"NINJA_STATUS": "[%f/%t] "}
    with (
        Progress(*columns, console=console) as progress,
        subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True, env=status) as build,
    ):
        task = progress.add_task("", total=None)
        assert build.stdout is not None
        for line in build.stdout:
            if step := re.match(r"\[(\d+)/(\d+)\] (.*)", line):
                name = step[3].rpartition("/")[2]
                progress.update(task, completed=int(step[1]), total=int(step[2]), description=name)
            else:
                progress.print(line, end="")  # what a compiler has to say
    return build.returncode


if __name__ == "__main__":
    sys.exit(main())
