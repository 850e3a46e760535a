"""The examination: questions in child processes, so that a crash is a finding and not the end."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy

import dlbridge
from dlbridge import libraries
from dlbridge.doctor._specimens import Specimen, specimens

TIMEOUT = 180.0
Say = Callable[[str, float], None]  # what is asked now, and which part of all is done


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return f"hung for {TIMEOUT:.0f} s"
    if status < 0:
        return f"ended the process: {signal.Signals(-status).name}"
    return f"ended the process with status {status}"


def _ask(arguments: list[str]) -> tuple[list[Any], str | None, str]:
    """The answers, the question that was open when the child ended early, and how it ended."""
    command = [sys.executable, "-m", "dlbridge.doctor._child", *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        out, err = child.communicate(timeout=TIMEOUT)
        status: int | None = child.returncode
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        status = None
    answers: list[Any] = []
    started: str | None = None
    for line in out.splitlines():
        said = json.loads(line)
        started = said.get("start")
        if "result" in said:
            answers.append(said["result"])
    if status == 0:
        return answers, None, ""
    ended = _how_it_ended(status)
    if status is not None and status > 0 and err.strip():
        ended += f" ({err.strip().splitlines()[-1][:300]})"
    return answers, started or "start", ended


def examine_rules(specimen: Specimen) -> dict[str, Any]:
    """Every rule of the kit, asked of one library."""
    answers: list[Any] = []
    row = {"name": specimen.name, "version": specimen.version, "fault": None, "rules": answers}
    while True:
        done = [each["rule"] for each in answers]
        more, open_question, ended = _ask(["rules", specimen.name, *done])
        answers += more
        if open_question is None:
            return row
        if open_question in ("start", "import"):
            return row | {"fault": ended, "rules": []}
        answers.append({"rule": open_question, "outcome": "crash", "reason": ended})


def examine_crossings(source: str, targets: list[str]) -> Iterator[dict[str, Any]]:
    """The crossings from one library to others. What ended the process is asked again alone, and
    then without the crossing: two libraries that cannot live in one process are no fault of it."""
    left = list(targets)
    while left:
        answers, open_question, ended = _ask(["crossings", source, *left])
        yield from answers
        left = left[len(answers) :]
        if open_question is None or not left:
            break
        target = left.pop(0)
        again, still, ended = _ask(["crossings", source, target])
        if still is None and again:
            again[0]["beside"] = "not in one process with the libraries before it"
            yield again[0]
            continue
        _, apart, how = _ask(["together", source, target])
        outcome = "crash" if apart is None else "apart"
        reason = ended if apart is None else f"without any crossing, {source} and {target} {how}"
        yield {"source": source, "target": target, "outcome": outcome, "reason": reason}


def examine(names: list[str] | None, say: Say) -> dict[str, Any]:
    """The whole report: libraries with their rules, and every ordered pair."""
    found = specimens()
    if names:
        unknown = [name for name in names if name not in found]
        if unknown:
            raise SystemExit(
                f"dlbridge doctor: {', '.join(unknown)} not installed; here are {', '.join(found)}"
            )
        found = {name: found[name] for name in names}
    report: dict[str, Any] = {
        "dlbridge": dlbridge.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "torch_road": _torch_road() if "torch" in found else "",
        "companions": _companions(),
        "runtimes": _runtimes(),
        "settings": {k: v for k, v in os.environ.items() if k.startswith("DLBRIDGE_")},
        "libraries": [],
        "crossings": [],
    }
    for index, (name, specimen) in enumerate(found.items()):
        say(f"asking {name}", index / len(found) / 2)
        row = examine_rules(specimen)
        report["libraries"].append(row | {"dtypes": _dtypes_of(name)})
    usable = [row["name"] for row in report["libraries"] if row["fault"] is None]
    for index, name in enumerate(usable):
        say(f"crossing from {name}", (1 + index / len(usable)) / 2)
        targets = [other for other in usable if other != name]
        report["crossings"] += list(examine_crossings(name, targets))
    return report


def _told(code: str) -> str:
    """The last line that a child process prints that runs this; nothing where it fails."""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = child.stdout.splitlines() if child.returncode == 0 else []
    return lines[-1] if lines else ""


def _torch_road() -> str:
    """The road that tensors of the torch here take, and why if it is the slower one."""
    ask = "import torch, dlbridge as d; d.to_numpy(torch.zeros(1)); print(d.stats().torch_road)"
    return _told(ask) or "none: torch cannot be imported"


def _runtimes() -> dict[str, str]:
    """What reaches the devices that the package has a runtime for, or why nothing does."""
    ask = "import json, dlbridge as d; d.pinned_empty(1); print(json.dumps(d.stats().runtimes))"
    found: dict[str, str] = json.loads(_told(ask) or '{"cuda": "its runtime ends the process"}')
    return found


def _companions() -> list[str]:
    """The extensions of the package for single releases of torch and for devices."""
    folder = Path(dlbridge.__file__).parent
    files = [*folder.glob("_torch_*.so"), *folder.glob("_cuda.*so")]
    return sorted(file.name.partition(".")[0].lstrip("_") for file in files)


def _dtypes_of(name: str) -> Any:
    """The types that it takes, as its row in the registry says; None for all or for unknown."""
    library = libraries.named(name)
    with contextlib.suppress(Exception):
        if library is not None and library.capabilities is not None:
            return libraries.capabilities_of(library).dtypes
    return None
