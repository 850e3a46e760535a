"""Wheels of dlbridge, one for each Python, with companions for many releases of torch.

    python cmake/wheels.py [--pythons 3.11 3.12] [--torches 2.8.0 2.15.0] [--out dist]

For a Python get companions the releases that have a wheel for it. Only their headers are fetched
(see torch_headers.py); they stay in a cache. The same commit gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from torch_headers import python_tag, unpack, wheels_of

SOURCES = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dlbridge" / "torch"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TORCHES = (
    *("2.4.0", "2.4.1", "2.5.0", "2.5.1", "2.6.0", "2.7.0", "2.7.1", "2.8.0", "2.9.0", "2.9.1"),
    *("2.10.0", "2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1", "2.15.0"),
)
# What a companion asks for by name, and its torch has loaded.
OF_TORCH = ("libtorch_cpu.so", "libtorch_python.so", "libc10.so")


def interpreter(version: str) -> str:
    """The path of that Python, from PATH or from where pyenv keeps its own."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
        # pyenv's stand-ins are on PATH for versions that are not switched on, too.
        if candidate and subprocess.run([candidate, "-V"], capture_output=True).returncode == 0:
            return candidate
    raise SystemExit(f"there is no Python {version} here; name others with --pythons")


def torches_for(python: str, torches: Iterable[str] = TORCHES) -> list[str]:
    """Those of the releases that have a wheel for this Python."""
    tag = python_tag(python)
    return [each for each in torches if any(tag in name for name, _ in wheels_of(each))]


def build(python: str, torches: list[str], out: Path, *options: str) -> Path:
    folders = [unpack(release, CACHE) for release in torches_for(python, torches)]
    seconds = ["git", "-C", str(SOURCES), "log", "-1", "--format=%ct"]
    epoch = subprocess.run(seconds, capture_output=True, text=True).stdout.strip() or "315532800"
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    setting = "--config-settings="  # the pip of Python 3.10 does not know it as -C
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(interpreter(python), "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder),
                f"{setting}build-dir={SOURCES / 'build-wheels' / '-'.join((python, *options))}",
                *(f"{setting}cmake.define.{option}" for option in options),
                f"{setting}cmake.define.DLBRIDGE_TORCH=OFF",
                f"{setting}cmake.define.DLBRIDGE_COMPANIONS={';'.join(map(str, folders))}",
                str(SOURCES),
            ],
            check=True,
            env=environment,
        )
        (raw,) = Path(folder).glob("*.whl")
        excluded = [word for name in OF_TORCH for word in ("--exclude", name)]
        finished = Path(folder) / "finished"
        subprocess.run(
            [sys.executable, "-m", "auditwheel", "repair", *excluded, "-w", finished, raw],
            check=True,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        (wheel,) = finished.iterdir()
        return Path(shutil.move(wheel, out / wheel.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS)
    parser.add_argument("--torches", nargs="+", default=TORCHES)
    parser.add_argument("--out", type=Path, default=SOURCES / "dist")
    given = parser.parse_args()
    given.out.mkdir(exist_ok=True)
    for python in given.pythons:
        wheel = build(python, given.torches, given.out)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
