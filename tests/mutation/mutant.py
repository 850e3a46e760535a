"""The switch of the mutants in Python files."""

from __future__ import annotations

import os


def mutant_is_on(number: int) -> bool:
    """Whether the tests run for this mutant."""
    return os.environ.get("DLBRIDGE_MUTANT") == str(number)
