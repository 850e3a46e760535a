"""The tool behind `make matrix`: its table, and what stands in for CUDA in torch's libraries."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "cmake"))

import matrix
import torch_runtime


def test_a_row_stands_until_its_cell_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "TABLE", tmp_path / "matrix.md")
    for row in (
        "3.12.1 | 2.15.0 | 2.0.2 | 7",
        "3.12.1 | 2.4.0 | 2.0.2 | 5",
        "3.9.1 | 2.4.0 | 2 | 1",
    ):
        matrix.keep(f"| {row} |")
    matrix.keep("| 3.12.1 | 2.4.0 | 2.0.2 | 6 |")
    found = [line.strip("| ") for line in matrix.TABLE.read_text().splitlines()[-3:]]
    assert found == [
        "3.9.1 | 2.4.0 | 2 | 1",
        "3.12.1 | 2.4.0 | 2.0.2 | 6",
        "3.12.1 | 2.15.0 | 2.0.2 | 7",
    ]


def test_a_turn_asks_one_cell_and_leaves_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [matrix.Cell("3.12", "2.8.0", numpy) for numpy in ("1.26.4", "2.0.2", "2.5.5")]
    asked = []

    def ask(cell: matrix.Cell, *how: object, **more: object) -> tuple[str, int]:
        asked.append(cell)
        return "| 3.12.1 | 2.8.0 | 2.0.2 | 6 |", 0

    for name, fake in {
        "TABLE": tmp_path / "matrix.md",
        "cells": lambda given: iter(every),
        "fresh_wheel": lambda cell: tmp_path,
        "modules_of": lambda place: tmp_path,
        "asked_of": ask,
    }.items():
        monkeypatch.setattr(matrix, name, fake)
    for turn in range(6, 10):
        monkeypatch.setattr(sys, "argv", ["matrix.py", "--turn", str(turn), "tests/python/types"])
        with pytest.raises(SystemExit) as ended:
            matrix.main()
        assert not ended.value.code
    assert asked == [*every, every[0]] and not matrix.TABLE.exists()


def test_the_suite_gets_its_modules_and_nothing_else_of_a_build(tmp_path: Path) -> None:
    built = tmp_path / "python"
    (built / "dlbridge").mkdir(parents=True)
    wanted = [f"{name}.cpython-312.so" for name in matrix.TEST_MODULES]
    for name in (*wanted, "dlbridge_guarded_torch.cpython-312.so"):
        (built / name).touch()
    modules = matrix.modules_of(tmp_path)
    assert sorted(each.name for each in modules.iterdir()) == sorted(wanted)


def test_a_library_that_lacks_cuda_is_loaded_and_hears_of_no_device(tmp_path: Path) -> None:
    source, lacking = tmp_path / "source.cpp", tmp_path / "liblacking.so"
    source.write_text(
        "#include <typeinfo>\n"
        'extern "C" int cudaGetDeviceCount(int*);\n'
        "struct Graph { Graph(); virtual ~Graph(); };\n"
        "struct Group { virtual ~Group(); };\n"
        "int& checker();\n"
        'extern "C" int devices() {\n'
        "  Graph graph; checker() = 1; return cudaGetDeviceCount(nullptr);\n"
        "}\n"
        'extern "C" const char* name() { return typeid(Group).name(); }\n'
    )
    (tmp_path / "empty.c").write_text("")
    cuda = tmp_path / "libcuda_of_another_machine.so.12"
    build = (os.environ.get("CXX", "c++"), "-shared", "-fPIC", "-Wl,-rpath,$ORIGIN")
    subprocess.run(
        [*build, tmp_path / "empty.c", f"-Wl,-soname,{cuda.name}", "-o", cuda], check=True
    )
    linked = ("-Wl,--no-as-needed", cuda, "-o", lacking)
    subprocess.run([*build, source, *linked], check=True)
    cuda.unlink()
    with pytest.raises(OSError, match=cuda.name):
        ctypes.CDLL(str(lacking))
    torch_runtime.stand_in_for_cuda(tmp_path)
    loaded = ctypes.CDLL(str(lacking))
    loaded.name.restype = ctypes.c_char_p
    assert (loaded.devices(), loaded.name()) == (torch_runtime.NO_DEVICE, b"5Group")
