"""Law 3 for memory that is no tensor's: maps of files, shared memory, buffers that move."""

from __future__ import annotations

import functools
from pathlib import Path

import buffer_scenarios
import pytest
from dlb_support import scenario_outcomes

SCRIPT = Path(buffer_scenarios.__file__)
NAMES = buffer_scenarios.scenario_names()


@functools.cache
def outcomes() -> dict[str, str]:
    return scenario_outcomes(SCRIPT, [], NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_keeps_its_values_or_the_owner_does_not_let_go(name: str) -> None:
    assert outcomes()[name] in ("kept", "raised", "the array itself")
