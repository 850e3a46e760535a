"""The Python suite on installed wheels, for Pythons, torches and NumPys; leaves docs/matrix.md.

    python cmake/matrix.py [--pythons 3.12] [--torches 2.8.0] [--numpys 1.26.4] [--third 0]
    python cmake/matrix.py --turn 7

A cell of the matrix is an environment of its own, in a cache: the wheel of `make wheels`, that
NumPy, and that torch without what is for CUDA only (torch_runtime.py). Its row in the table is
replaced. What else is said is said to pytest.

A turn is for CI: one of the cells of this Python, with a wheel that is built for it, and with the
tests' modules of build/. The table is left alone.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from torch_headers import files_of, python_tag
from torch_runtime import torch_needs, unpack_runtime
from wheels import CACHE, PYTHONS, SOURCES, build, interpreter, torches_for

PLACE = CACHE.parent / "matrix"
TABLE = SOURCES / "docs" / "matrix.md"
MIDDLE_TORCH = "2.8.0"  # the last without an exchange table
NUMPYS = ("1.26.4", "2.0.2", "newest")
TEST_MODULES = (
    *("dlbridge_probe", "dlbridge_guarded"),
    *("dlbridge_nanobind_casters", "dlbridge_pybind11_casters"),
)
HEAD = """\
<!-- Written by: make matrix -->

| CPython | torch | NumPy | roads | asked | passed | failed | skipped | day |
|---|---|---|---|---|---|---|---|---|
"""
VERSIONS = """
import platform, numpy, torch, dlbridge
dlbridge.to_numpy(torch.ones(1))
linked = dlbridge.stats().torch_road == "linked"
print(platform.python_version(), torch.__version__, numpy.__version__,
      "both" if linked else "portable", sep=" | ")
"""


class Cell(NamedTuple):
    python: str
    torch: str
    numpy: str


def numbers(release: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", release)]


def numpys_for(python: str) -> list[str]:
    """Those of NUMPYS that have a wheel for this Python."""
    tag = python_tag(python)
    names = [file["filename"] for file in files_of("numpy") if tag in file["filename"]]
    releases = [each for name in names for each in re.findall(r"^numpy-([\d.]+)-", name)]
    newest = max(releases, key=numbers)
    wanted = [newest if each == "newest" else each for each in NUMPYS]
    return [each for each in wanted if each in releases]


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    for i, python in enumerate(given.pythons):
        known = torches_for(python)
        torches = given.torches or dict.fromkeys((known[0], MIDDLE_TORCH, known[-1]))
        for j, torch in enumerate(each for each in torches if each in known):
            for k, numpy in enumerate(given.numpys or numpys_for(python)):
                if given.third is None or (i + j + k) % 3 == given.third:
                    yield Cell(python, torch, numpy)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(name: str, python: str, *needs: str | Path) -> Path:
    """The Python of the environment in the cache that has what it needs, in uv's words."""
    place = PLACE / name
    if not place.is_dir():
        run("uv", "venv", "-q", "--python", interpreter(python), place)
    run("uv", "pip", "install", "-q", "--only-binary", ":all:", "--python", place, *needs)
    return place / "bin" / "python"


def built_wheel(python: str) -> Path:
    wheels = sorted((SOURCES / "dist").glob(f"dlbridge-*{python_tag(python)}*.whl"))
    if not wheels:
        raise SystemExit(f"there is no wheel for Python {python}: make wheels")
    return wheels[-1]


def fresh_wheel(cell: Cell) -> Path:
    """With the one companion, and nothing for CUDA, which takes longer than all else."""
    folder = SOURCES / "build-matrix" / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return build(cell.python, [cell.torch], folder, "DLBRIDGE_CUDA=OFF")


def with_wheel(cell: Cell, wheel: Path) -> Path:
    """The Python of the cell's environment."""
    torch = unpack_runtime(cell.torch, cell.python, PLACE)
    requirements = SOURCES / "requirements" / "matrix.txt"
    packages = [f"numpy=={cell.numpy}", *torch_needs(torch)]
    python = environment("-".join(cell), cell.python, "-r", requirements, *packages)
    run("uv", "pip", "install", "-q", "--reinstall", "--no-deps", "--python", python, wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "torch.pth").write_text(f"{torch}\n")
    return python


def modules_of(place: Path) -> Path:
    """The folder with what the suite has in C++, and with nothing else of a build."""
    modules = place / "modules"
    modules.mkdir(exist_ok=True)
    for file in (file for name in TEST_MODULES for file in (place / "python").glob(f"{name}.*so")):
        (modules / file.name).unlink(missing_ok=True)
        (modules / file.name).symlink_to(file)
    return modules


@functools.cache
def test_modules(version: str) -> Path:
    needs = ("numpy>=2", "nanobind", "pybind11", "apache-tvm-ffi")
    python = environment(f"build-{version}", version, *needs)
    place = SOURCES / "build-matrix" / version
    off = ("-DDLBRIDGE_TORCH=OFF", "-DDLBRIDGE_CUDA=OFF")
    chosen = ("--preset", "dev", *off, f"-DPython3_EXECUTABLE={python}")
    run("cmake", "-S", SOURCES, "-B", place, *chosen)
    run("cmake", "--build", place, "--target", *TEST_MODULES)
    return modules_of(place)


def asked_of(
    cell: Cell, wheel: Path, modules: Path, pytests: list[str], jobs: int
) -> tuple[str, int]:
    """The row of the table: versions, what was asked, and what came of it; and how much failed."""
    python = with_wheel(cell, wheel)
    versions = run(python, "-W", "error", "-c", VERSIONS).strip()
    report = PLACE / "-".join(cell) / "report.xml"
    report.unlink(missing_ok=True)
    tests = (
        pytests
        if any(each.startswith("tests/") for each in pytests)
        else [*pytests, "tests/python"]
    )
    how = (f"--junitxml={report}", "-p", "no:cacheprovider", "-n", str(jobs), "--dist", "worksteal")
    modules_first = os.environ | {"PYTHONPATH": str(modules)}
    pytest = [str(python), "-m", "pytest", *how, *tests]
    done = subprocess.run(pytest, check=False, cwd=SOURCES, env=modules_first)
    if done.returncode > 1 or not report.exists():
        raise SystemExit(f"pytest did not come to its end: {versions}")
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    said = (each for each in tests if not re.fullmatch("-q|-v+|--tb=.*", each))
    asked = " ".join(each.removeprefix("tests/python/") for each in said)
    row = (versions, asked, passed, failed, count["skipped"], datetime.date.today())
    return f"| {' | '.join(map(str, row))} |", failed


def keep(row: str) -> None:
    """Puts the row into the table, for the one with the same versions."""
    rows = {}
    for line in [*(TABLE.read_text() if TABLE.exists() else "").splitlines(), row]:
        if re.match(r"\| \d", line):
            versions = tuple(line.split(" | ")[:3])
            rows[versions] = line

    def by_release(versions: tuple[str, ...]) -> list[list[int]]:
        return [numbers(each) for each in versions]

    TABLE.write_text(HEAD + "".join(f"{rows[each]}\n" for each in sorted(rows, key=by_release)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS)
    parser.add_argument("--torches", nargs="+")
    parser.add_argument("--numpys", nargs="+")
    parser.add_argument("--third", type=int, choices=range(3), help="of all cells")
    parser.add_argument("--turn", type=int, help="one of the cells of this Python, for CI")
    parser.add_argument("--jobs", type=int, default=2)
    given, pytests = parser.parse_known_args()
    asked = functools.partial(asked_of, pytests=pytests, jobs=given.jobs)
    if given.turn is not None:
        given.pythons = [f"{sys.version_info.major}.{sys.version_info.minor}"]
        chosen = list(cells(given))
        cell = chosen[given.turn % len(chosen)]
        print(*cell, flush=True)
        row, failures = asked(cell, fresh_wheel(cell), modules_of(SOURCES / "build"))
        print(row)
        sys.exit(failures > 0)
    all_failures = 0
    for cell in cells(given):
        print(*cell, flush=True)
        row, failures = asked(cell, built_wheel(cell.python), test_modules(cell.python))
        keep(row)
        print(row, flush=True)
        all_failures += failures
    sys.exit(all_failures > 0)


if __name__ == "__main__":
    main()
