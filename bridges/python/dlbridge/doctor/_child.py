"""What the doctor asks in a child process: it says what it starts and what came of it, in JSON.

A line ``{"start": ...}`` goes before each question and ``{"result": ...}``, or ``{"end": ...}``,
after it, so that the parent knows which question ended the process.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import warnings
from typing import Any

import numpy as np

import dlbridge
from dlbridge import libraries, testing
from dlbridge.doctor._specimens import Specimen, make, read, specimens

FLOATS = np.arange(24, dtype="f4").reshape(4, 6)
ROUNDS = 40


def say(kind: str, value: Any) -> None:
    _channel.write(json.dumps({kind: value}) + "\n")
    _channel.flush()


def _floats(*names: str) -> Any:
    """Values that these libraries have room for: in one dimension where one has no second."""
    rows = (libraries.named(name) for name in names)
    flat = any(
        row and row.capabilities and libraries.capabilities_of(row).max_dimensions < 2
        for row in rows
    )
    return FLOATS.ravel() if flat else FLOATS


def _subjects(specimen: Specimen) -> list[Any]:
    """What the kit can ask of a library."""
    found: list[Any] = []
    x = make(specimen, _floats(specimen.name))

    def plain() -> Any:
        return make(specimen, FLOATS.ravel())

    def empty() -> Any:
        return make(specimen, np.zeros((0, 3), "f4"))

    if hasattr(x, "__dlpack__"):
        found.append(testing.Producer(make=plain, empty=None if specimen.name == "mlx" else empty))
    if specimen.take is not None:
        found.append(
            testing.Consumer(
                take=libraries.function_of(specimen.take),
                values=lambda result: read(specimen, result).tolist(),
                write=specimen.write,
            )
        )
    if hasattr(type(x), "__dlpack_c_exchange_api__"):
        found.append(testing.ExchangeTable(type=type(x), make=plain))
    return found


def ask_rules(name: str, known: list[str]) -> None:
    """Asks every rule that is not known yet."""
    say("start", "import")
    specimen = specimens()[name]
    subjects = _subjects(specimen)
    say("end", "import")
    for subject in subjects:
        for rule in testing.rules(subject.kind):
            if str(rule) in known:
                continue
            say("start", str(rule))
            [finding] = testing.run(subject, [str(rule)])
            answer = {"rule": str(rule), "kind": rule.kind, "must": rule.must}
            say("result", answer | {"outcome": finding.outcome, "reason": finding.reason})


def _cross(source: Specimen, target: Specimen, part: bool) -> dict[str, Any] | None:
    """One crossing: whether the values are right, a view or a copy, how long it takes."""
    array = _floats(source.name, target.name)
    x = make(source, array)
    if part:
        if source.part is None:
            return None
        x = source.part(x)
        array = array[1:]
    try:
        plan = dlbridge.explain(x, target.name)
        result = dlbridge.to(x, target.name)
    except dlbridge.ConversionRefused as refused:
        return {"outcome": "refused", "reason": "; ".join(refused.reasons), "fix": refused.fix}
    found = read(target, result)
    right = found.shape == array.shape and bool((found == array).all())
    answer: dict[str, Any] = {
        "outcome": ("view" if plan.view else "copy") if right else "wrong values",
        "reason": "; ".join(plan.reasons),
        "notes": list(plan.notes),
    }
    if not right:
        answer["reason"] = f"{found.ravel()[:6].tolist()} for {array.ravel()[:6].tolist()}"
    if not part:
        answer["microseconds"] = _time(x, target.name)
    return answer


def _time(x: Any, target: str) -> float:
    """The best of some crossings, which is what it costs where nothing disturbs it."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        dlbridge.to(x, target)
        best = min(best, time.perf_counter() - start)
    return round(best * 1e6, 1)


def _settle() -> int:
    gc.collect()
    dlbridge.from_dlpack(np.zeros(1))
    gc.collect()
    return dlbridge.stats().alive


def cross(source: str, targets: list[str]) -> None:
    """Crosses from one library to each of the others."""
    known = specimens()
    for name in targets:
        say("start", name)
        before = _settle()
        answer: dict[str, Any] = {"source": source, "target": name}
        try:
            answer.update(_cross(known[source], known[name], False) or {})
            answer["part"] = _cross(known[source], known[name], True)
        except Exception as error:
            answer["outcome"] = "error"
            answer["reason"] = f"{type(error).__name__}: {error}"[:400]
        # The first crossing leaves what a library keeps for ever; only what grows is a leak.
        leaked = _settle() - before
        if leaked:
            with contextlib.suppress(Exception):
                before = _settle()
                _cross(known[source], known[name], False)
                leaked = _settle() - before
        answer["leaked"] = leaked
        say("result", answer)


def live_together(names: list[str]) -> None:
    """Makes a tensor of each, and no crossing."""
    known = specimens()
    for name in names:
        say("start", name)
        kept = make(known[name], _floats(name))
        say("result", type(kept).__name__)


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    asked, *rest = arguments
    if asked == "together":
        live_together(rest)
    elif asked == "rules":
        ask_rules(rest[0], rest[1:])
    else:
        cross(rest[0], rest[1:])


if __name__ == "__main__":
    # Libraries print what they like: the answers have a channel of their own.
    _channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(sys.argv[1:])
    _channel.flush()
    os._exit(0)  # what a library does at its end is not asked here
