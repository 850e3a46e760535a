"""The scripts of examples/, run as their reader would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dlb_support import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"

# What each has to say, and how many copies its ledger may show.
SCRIPTS = {
    "photographs": (["of the unseen crops are told apart", "photographs.py:"], "31 copies of"),
    "deblur": (["differences of its values: True", "deblur.py:", "dB"], " 0 copies of"),
    "features": (["active at first", "features.py:"], " 0 copies of"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs_and_prints_its_ledger(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, paths))))
    monkeypatch.chdir(tmp_path)  # where the pictures go
    out = run_python(str(EXAMPLES / f"{name}.py"))
    expected, copies = SCRIPTS[name]
    for words in [*expected, copies, "What crossed"]:
        assert words in out, out
    if name != "photographs":
        assert (tmp_path / f"demo-output/{name}.png").stat().st_size > 10_000
