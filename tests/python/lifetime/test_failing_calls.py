"""Call N fails, for N = 1, 2, ... until the crossing comes through: whatever fails, nothing is left
behind, the error is the one that was met, and the next crossing is right."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlbridge_probe as probe
import failing_calls
import pytest
from dlb_support import counters, run_python, settle
from failing_calls import (
    CANNOT_FAIL,
    CASES,
    MOST_CALLS,
    WITHOUT_MEMORY,
    Case,
    InjectedError,
    expect,
    patched,
)

import dlbridge

pytestmark = pytest.mark.skipif(
    not probe.patches_calls, reason="calls can be made to fail on Linux and x86-64 only"
)


@pytest.fixture(scope="module", autouse=True)
def calls_that_cannot_fail() -> Iterator[set[str]]:
    dlbridge.to_torch(dlbridge.from_dlpack(b"1"), copy=True)  # loads the companion
    with patched() as others:
        yield others


def test_every_function_of_python_that_is_called_is_known_to_fail_or_not_to(
    calls_that_cannot_fail: set[str],
) -> None:
    of_python = {name for name in calls_that_cannot_fail if name.startswith(("Py", "_Py"))}
    # Of a new one, failing_calls.py says how it fails, or that it cannot.
    assert of_python - CANNOT_FAIL == set()


def calling(cross: Callable[[Any], Any], source: Any) -> Callable[[], Any]:
    return lambda: cross(source)


def steps(case: Case, memory: bool) -> list[str]:
    """Everything that is wrong, over all N."""
    faults = []
    for at in range(1, MOST_CALLS):
        before = counters()
        source = case.make()
        references = sys.getrefcount(source)
        fired, result, error = probe.call_with_failure(
            calling(case.cross, source), at, memory, InjectedError
        )
        fault = expect(case, fired, result, error)
        del result, error
        if sys.getrefcount(source) != references:
            settle()
        if sys.getrefcount(source) != references:
            fault += f"; references {references} became {sys.getrefcount(source)}"
        del source
        if counters() != before:
            settle()
        if counters() != before:
            fault += f"; counters {before} became {counters()}"
        try:
            result, error = case.cross(case.make()), None
        except Exception as raised:
            result, error = None, raised.with_traceback(None)
        if again := expect(case, None, result, error):
            fault += f"; the next crossing {again}"
        del result, error
        if fault:
            faults.append(f"{at}. {fired}: {fault}")
        if fired is None:
            return faults
    raise AssertionError("it never came through")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.torch])
def test_a_failing_call_leaves_nothing_behind(name: str) -> None:
    assert not steps(CASES[name], memory=False)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.torch])
def test_a_failing_call_leaves_nothing_behind_at_torch(name: str, road: str) -> None:
    assert not steps(CASES[name], memory=False)


MEMORY = [name for name in CASES if name not in WITHOUT_MEMORY]


@pytest.mark.parametrize("name", [name for name in MEMORY if not CASES[name].torch])
def test_memory_that_ends_leaves_nothing_behind(name: str) -> None:
    assert not steps(CASES[name], memory=True)


@pytest.mark.parametrize("name", [name for name in MEMORY if CASES[name].torch])
def test_memory_that_ends_leaves_nothing_behind_at_torch(name: str, road: str) -> None:
    assert not steps(CASES[name], memory=True)


# Those that import or remember something, and few enough calls that each can have its process.
FIRST = ("tensor to array", "array to tensor", "bfloat16 to array", "sparse", "masked", "malformed")


def test_a_failure_in_the_first_crossing_is_not_remembered(road: str) -> None:
    script = Path(failing_calls.__file__).with_name("failing_first_calls.py")
    said = run_python(str(script), road, *FIRST, timeout=900).splitlines()
    assert [line for line in said if not re.fullmatch(r"[\w ]+: \d+ calls", line)] == []
    assert len(said) == len(FIRST)
