"""The command `dlbridge`: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dlb_support import run_python

import dlbridge
from dlbridge.__main__ import main

SCRIPT = """
import sys
import numpy as np
import dlbridge
from beside import ARRAY
print(dlbridge.to_torch(ARRAY).tolist(), sys.argv[1:])
sys.exit(len(sys.argv))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("import numpy as np\nARRAY = np.arange(3)[::-1]\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_explain_says_what_would_become_of_an_array_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "x.npy")
    np.save(file, np.arange(6.0))
    assert main(["explain", file, "torch"]) == 0
    assert "float64 (6,) on cpu -> torch.Tensor: writable view" in capsys.readouterr().out
    assert main(["explain", file, "torch", "--dtype", "float32"]) == 0
    assert "copy of 24 bytes" in capsys.readouterr().out
    assert main(["explain", file, "torch", "--dtype", "float32", "--policy", "strict"]) == 1
    assert "refused" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["no file", "no target", "no numbers"])
def test_what_cannot_be_explained_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.array([None]) if wrong == "no numbers" else np.arange(6.0))
    name = "elsewhere.npy" if wrong == "no file" else str(file)
    assert main(["explain", name, "scenic" if wrong == "no target" else "torch"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dlbridge explain: ") and "Traceback" not in said


def test_trace_runs_a_script_as_python_does(script: Path, tmp_path: Path) -> None:
    run = (
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'dlbridge', 'trace', *sys.argv[1:]],\n"
        "    capture_output=True, text=True)\n"
        "print(done.returncode, done.stdout, done.stderr)\n"
    )
    page = tmp_path / "page.html"
    said = run_python("-c", run, "--html", str(page), str(script), "--html", "7")
    assert said.startswith("3 [2, 1, 0] ['--html', '7']")
    assert "script.py:6" in said and "1 copy of 24 B" in said
    assert "script.py:6" in page.read_text()


def test_trace_of_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "nowhere.py"]) == 2
    assert "there is no file nowhere.py" in capsys.readouterr().err


def test_a_plan_shows_itself_in_a_notebook() -> None:
    plan = dlbridge.explain(np.arange(3)[::-1], "torch")
    shown = plan._repr_html_()
    assert shown.startswith("<pre>numpy.ndarray int64 (3,) on cpu -&gt; torch.Tensor")
