"""docs/performance.md says what the bench measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_tables_are_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import tables
    from measure import Figure

    told = json.loads((ROOT / "docs/figures/performance.json").read_text(encoding="utf-8"))
    figures = [Figure(**each) for each in told["figures"]]
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert tables.filled(page, figures) == page, "bench/run.py --json ... --page ..."
    # Each figure is in it.
    rows = {tables.named(line.strip("| ").split(" | ")[0]) for line in page.split("\n")}
    assert {tables.named(each.name) for each in figures} <= rows
    for name in ("tables", "measure"):
        sys.modules.pop(name, None)
