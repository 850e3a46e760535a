"""Run in a child process: the first crossing of a process, in which call N fails.

    python failing_first_calls.py ROAD CASE...

Each N has a process of its own, forked before anything was looked up, imported or remembered. After
the failure the same crossing has to come through there: a failure must not be remembered either.
The cases after the first one find the road to torch there: looking for it is nine tenths of a first
crossing, and always the same.
Says "CASE: N calls" for each case, and a line for everything that is wrong.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

import dlbridge_probe as probe
import torch
from dlb_support import counters
from failing_calls import CASES, MOST_CALLS, Case, InjectedError, expect, patched

import dlbridge


def attempt(case: Case, at: int) -> tuple[bool, str]:
    """Whether a call failed, and what is wrong."""
    before = counters()
    fired, result, error = probe.call_with_failure(
        lambda: case.cross(case.make()), at, False, InjectedError
    )
    fault = expect(case, fired, result, error)
    del result, error
    try:
        result, error = case.cross(case.make()), None
    except Exception as raised:
        result, error = None, raised.with_traceback(None)
    if again := expect(case, None, result, error):
        fault += f"; the next crossing {again}"
    del result, error
    dlbridge.from_dlpack(b"1")  # carries out what waited for the GIL
    if counters() != before:
        fault += f"; counters {before} became {counters()}"
    return fired is not None, f"{at}. {fired}: {fault}" if fault else ""


def in_child(case: Case, at: int) -> tuple[bool, str]:
    """The attempt in a process of its own; a crash is a fault."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fired, fault = attempt(case, at)
            os.write(writing, f"{int(fired)}{fault}".encode())
        except BaseException:
            os.write(writing, f"0{at}. {traceback.format_exc()}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status != 0 or not said:
        return False, f"{at}. the process ended with status {status}"
    return said[0] == "1", said[1:]


def crossed(name: str) -> None:
    number, fired = 0, True
    while fired and number < MOST_CALLS:
        number += 1
        fired, wrong = in_child(CASES[name], number)
        if wrong:
            print(f"{name}: {wrong}", flush=True)
    print(f"{name}: {number - 1} calls", flush=True)


if __name__ == "__main__":
    road, first, *others = sys.argv[1:]
    torch.set_num_threads(1)
    if road == "portable":
        dlbridge._core.torch_road(road)
    with patched(), tempfile.TemporaryDirectory() as folder:
        # What the first crossing imports need not be compiled for every N.
        sys.pycache_prefix, sys.dont_write_bytecode = folder, False
        crossed(first)
        dlbridge._core.torch_road(road)
        for name in others:
            crossed(name)
