"""The scripts of examples/, run as their reader would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dlb_support import run_child, run_python

EXAMPLES = Path(__file__).parents[3] / "examples"

# What each has to say, and how many copies its ledger may show.
SCRIPTS = {
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
    assert (tmp_path / f"demo-output/{name}.png").stat().st_size > 10_000


def test_three_processes_say_what_each_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, paths))))
    monkeypatch.chdir(tmp_path)
    out = run_python(str(EXAMPLES / "processes.py"), timeout=280)
    for words in (
        "producer: 240 crossings, 40,960 bytes copied",  # 80 times 64 labels
        "trainer: 400 crossings, 205,120 bytes copied",  # 80 times 64 x 10 scores, and a loss
        "viewer: 240 crossings, 0 bytes copied",
        "drawn: demo-output/processes.png",
    ):
        assert words in out, out


def test_the_ledger_of_the_demo_names_the_right_lines_and_bytes(tmp_path: Path) -> None:
    out = run_child(
        f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES)!r})
import digits, dlbridge
ledgers, trace = [], dlbridge.trace
dlbridge.trace = lambda: ledgers.append(trace()) or ledgers[-1]
digits.EPOCHS = 1
digits.PICTURE = Path({str(tmp_path)!r}, "digits.png")
before = dlbridge.stats()
digits.main()
after = dlbridge.stats()
(ledger,) = ledgers
print("==")
for crossing in ledger:
    door = {{"numpy.ndarray": "dlbridge.to_numpy", "torch.Tensor": "dlbridge.to_torch"}}
    assert door[crossing.target] in crossing.code and crossing.file == digits.__file__
for line in ledger.lines:
    if line.copies:
        print(line.first.code, line.first.shape, line.bytes_copied)
assert ledger.total.bytes_copied == after.bytes_copied - before.bytes_copied
assert ledger.total.views == after.views - before.views
"""
    )
    # Everything is a view but the flipped filters, of 4 x 25 float32.
    copied = "edges = dlbridge.to_torch(edge_kernels()[..., ::-1, ::-1]) (4, 1, 5, 5) 400"
    assert out.partition("==\n")[2] == f"{copied}\n"
