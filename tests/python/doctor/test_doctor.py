"""The doctor: what it finds, what it does with a crash, and its three ways of telling."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from dlb_support import run_child, run_python

from dlbridge.__main__ import main
from dlbridge.doctor import _advice, _pages
from dlbridge.doctor._specimens import SPECIMENS, specimens

LIBRARIES = ("numpy", "torch", "dlbridge", "memoryview")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("doctor")
    said = run_python(
        "-m",
        "dlbridge",
        "doctor",
        *LIBRARIES,
        "--json",
        str(folder / "report.json"),
        "--html",
        str(folder / "report.html"),
        "--markdown",
        "-",
    )
    found = json.loads((folder / "report.json").read_text())
    found["html"] = (folder / "report.html").read_text()
    found["markdown"] = said
    return found


def test_every_ordered_pair_crosses(report: Any) -> None:
    pairs = {(each["source"], each["target"]): each for each in report["crossings"]}
    assert set(pairs) == {(a, b) for a in LIBRARIES for b in LIBRARIES if a != b}
    for each in pairs.values():
        assert each["outcome"] == "view" and each["leaked"] == 0
        assert each["microseconds"] > 0
        assert each["part"] is None or each["part"]["outcome"] == "view"
    assert not list(_advice.faults(report))


def test_the_rules_are_asked(report: Any) -> None:
    rows = {row["name"]: row for row in report["libraries"]}
    numpy = {each["rule"]: each["outcome"] for each in rows["numpy"]["rules"]}
    assert numpy["05-empty-is-null"] == "broken" and numpy["20-byte-offset"] == "kept"
    assert "28-table-is-complete" in {each["rule"] for each in rows["torch"]["rules"]}
    assert rows["memoryview"]["rules"] == []
    ours = [each for each in rows["dlbridge"]["rules"] if each["outcome"] in ("broken", "crash")]
    assert ours == []


def test_the_page_stands_alone(report: Any) -> None:
    assert report["html"].startswith("<!doctype html>")
    assert "src=" not in report["html"] and "href=" not in report["html"]
    assert "numpy" in report["html"] and "05-empty-is-null" in report["html"]
    assert "| **numpy** |" in report["markdown"]


def test_it_is_shown_on_a_terminal(report: Any) -> None:
    console = pytest.importorskip("rich.console")
    from dlbridge.doctor._terminal import show

    shown = console.Console(width=60, record=True, file=io.StringIO())
    show(report, shown)
    text = shown.export_text()
    assert "view" in text and "torch 2" in text


def faults(crossing: dict[str, Any]) -> list[Any]:
    return list(_advice.faults({"crossings": [crossing]}))


def test_faults_are_told() -> None:
    crossing = {"source": "a", "target": "b", "reason": "r", "leaked": 0}
    for outcome in ("wrong values", "crash", "error"):
        assert faults(crossing | {"outcome": outcome})
        assert faults(crossing | {"outcome": "view", "part": {"outcome": outcome, "reason": "r"}})
    assert faults(crossing | {"outcome": "view", "leaked": 2})
    assert faults(crossing | {"outcome": "refused", "reason": ""})
    assert not faults(crossing | {"outcome": "refused"})
    assert not faults(crossing | {"outcome": "apart"})
    assert "apart" in _pages.OUTCOMES


def test_every_finding_says_what_to_do() -> None:
    crossing = {"source": "a", "target": "b", "reason": "r"}
    rule = {"rule": "23-read-only", "outcome": "broken", "reason": "it was written to"}
    found = list(
        _advice.findings(
            {
                "torch_road": "portable: there is no companion for torch 9",
                "runtimes": {"cuda": "there is no NVIDIA driver here", "ext_dev": "2 devices"},
                "libraries": [
                    {"name": "a", "version": "1", "fault": "hung for 180 s", "rules": []},
                    {"name": "b", "version": "2", "fault": None, "rules": [rule]},
                ],
                "crossings": [
                    crossing | {"outcome": "refused", "fix": "x.to_dense()"},
                    crossing | {"outcome": "refused"},
                    crossing | {"outcome": "apart"},
                    crossing | {"outcome": "crash"},
                ],
            }
        )
    )
    assert [where for where, _, _ in found] == [
        *("a to b", "torch", "cuda", "a 1"),
        *3 * ["a to b"],
        "b 2",
    ]
    advice = [advice for _, _, advice in found]
    for said, words in zip(
        advice,
        ("report", "companion", "nvcc", "without dlbridge", "x.to", "another", "share", "b's"),
        strict=True,
    ):
        assert words in said


def test_the_settings_the_runtimes_and_the_road_are_told(report: Any) -> None:
    assert any(name.startswith("torch_") for name in report["companions"])
    assert report["runtimes"]["cuda"]  # that of the package: its devices, or why it has none
    told = _pages.title(report | {"settings": {"A": "1"}, "runtimes": {"cuda": "1 device"}})
    assert "cuda: 1 device; the road to torch is linked; A=1" in told


def test_how_far_it_is_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from dlbridge.doctor._terminal import bar

    with bar() as say:
        say("asking numpy", 0.5)
    assert "100%" in capsys.readouterr().err


PLUGIN = """
import os, sys, dlbridge
class Thing:
    def __init__(self, array): self.array = array
    def __dlpack__(self, **keywords):
        if keywords.get("copy"):
            os.abort()
        return self.array.__dlpack__(**keywords)
    def __dlpack_device__(self): return (1, 0)
def take(managed):
    if sys.argv[1] == "crossings":
        os._exit(7)
    return Thing(dlbridge.to_numpy(managed))
def register():
    dlbridge.register(dlbridge.Library(
        name="fragile", capabilities=dlbridge.Capabilities(), take=lambda m: Thing(
            dlbridge.to_numpy(m))))
    dlbridge.register(dlbridge.Library(
        name="fragile_too", modules=("os",), capabilities=dlbridge.Capabilities(), take=take))
"""


def test_a_crash_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "fragile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dlbridge.libraries]\nfragile = fragile:register\n")
    (tmp_path / "fragile.py").write_text(PLUGIN)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    out = run_child(
        "import json\n"
        "from dlbridge.doctor import _examine\n"
        "from dlbridge.doctor._specimens import specimens\n"
        "found = specimens()\n"
        "rules = _examine.examine_rules(found['fragile'])\n"
        "crossings = list(_examine.examine_crossings('numpy', ['fragile_too', 'fragile']))\n"
        "print(json.dumps([rules, crossings]))\n"
    )
    rules, crossings = json.loads(out.splitlines()[-1])
    outcomes = {each["rule"]: each for each in rules["rules"]}
    assert rules["version"] == "1.0" and rules["fault"] is None
    assert outcomes["08-copy-keyword"]["outcome"] == "crash"
    assert "SIGABRT" in outcomes["08-copy-keyword"]["reason"]
    assert outcomes["12-zero-copy"]["outcome"] == "kept"  # it went on behind the crash
    assert [each["outcome"] for each in crossings] == ["crash", "view"]
    assert "status 7" in crossings[0]["reason"]


def test_a_library_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no_such_library"):
        main(["doctor", "no_such_library", "--json", "-"])


def test_without_rich_it_says_what_to_install() -> None:
    out = run_child(
        "import sys; sys.modules['rich'] = None\n"
        "from dlbridge.__main__ import main\n"
        "import contextlib, io\n"
        "said = io.StringIO()\n"
        "with contextlib.redirect_stderr(said):\n"
        "    status = main(['doctor', 'numpy'])\n"
        "print(status, said.getvalue())"
    )
    assert out.startswith("2 ") and "dlbridge[doctor]" in out and "--html" in out


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().err


def test_specimens_are_rows_of_the_registry() -> None:
    from dlbridge import _registry

    for specimen in SPECIMENS:
        library = _registry.library_named(specimen.name)
        assert library is not None and library.is_target
    assert {"numpy", "torch", "memoryview"} <= set(specimens())
