"""What docs/security.md promises of the built files, and of what the environment can reach."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from dlb_support import run_python

import dlbridge

PACKAGE = Path(dlbridge._core.__file__).parent
BUILD = PACKAGE.parents[1]
SOURCES = Path(__file__).parents[3]
BINARIES = sorted(PACKAGE.glob("*.so"))
asan = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizers' runtime is linked as well"
)
each_binary = pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name.split(".")[0])


def readelf(option: str, binary: Path) -> str:
    return subprocess.run(
        ["readelf", "-W", option, str(binary)], check=True, capture_output=True, text=True
    ).stdout


def imported(binary: Path) -> set[str]:
    """The functions and data that the binary has of other libraries."""
    return set(re.findall(r" UND (\w+)", readelf("--dyn-syms", binary)))


def needed(binary: Path) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("-d", binary)))


def test_there_is_a_binary_to_look_at() -> None:
    assert any(binary.name.startswith("_core.") for binary in BINARIES)


@each_binary
def test_the_stack_is_guarded_and_not_executable(binary: Path) -> None:
    assert "__stack_chk_fail" in imported(binary)
    (stack,) = re.findall(r"GNU_STACK +(?:0x\w+ +){5}([RWE ]+?) +0x", readelf("-l", binary))
    assert stack == "RW"


@each_binary
def test_what_the_loader_writes_is_read_only_afterwards(binary: Path) -> None:
    dynamic = readelf("-d", binary)
    assert "GNU_RELRO" in readelf("-l", binary)
    assert "BIND_NOW" in dynamic
    assert "TEXTREL" not in dynamic


@each_binary
def test_no_segment_can_be_written_to_and_executed(binary: Path) -> None:
    loaded = re.findall(r"LOAD +(?:0x\w+ +){5}([RWE ]+?) +0x", readelf("-l", binary))
    assert loaded
    assert not [flags for flags in loaded if "W" in flags and "E" in flags]


@asan
def test_every_source_is_compiled_with_fortify() -> None:
    """Read from the compiler's calls: what needs no check at run time leaves no trace in a file."""
    path = BUILD / "compile_commands.json"
    if not path.exists():
        pytest.skip("not beside a build folder")
    commands = json.loads(path.read_text(encoding="utf-8"))
    shipped = re.compile(r"CMakeFiles/dlbridge(_python|_torch_\w+|_cuda\w*)?\.dir/")
    ours = [each["command"] for each in commands if shipped.search(each["command"])]
    assert ours
    assert all("-D_FORTIFY_SOURCE=2" in command for command in ours)
    assert all("-fstack-protector-strong" in command for command in ours)


@asan
@each_binary
def test_libraries_are_looked_for_where_the_loader_looks(binary: Path) -> None:
    """A companion's torch has loaded its own before; the loader knows them by their names."""
    assert not re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", readelf("-d", binary))
    system = {"libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2"}
    system |= {"libpthread.so.0", "libdl.so.2", "librt.so.1"}  # parts of libc.so.6 in newer glibc
    torch = {"libtorch_python.so", "libtorch_cpu.so", "libc10.so"}
    assert needed(binary) <= system | (torch if binary.name.startswith("_torch_") else set())


@asan
@each_binary
def test_no_binary_starts_programs_or_makes_memory_executable(binary: Path) -> None:
    if binary.name.startswith("_cuda."):
        pytest.skip("NVIDIA's runtime is linked into it")
    found = imported(binary)
    assert not {
        name for name in found if re.match(r"(system|popen|exec|posix_spawn|fork|mprotect)", name)
    }
    if not binary.name.startswith("_core."):
        assert "dlopen" not in found


def sources(*endings: str) -> list[Path]:
    found = [
        path
        for room in ("lib", "bridges")
        for path in (SOURCES / room).rglob("*")
        if path.suffix in endings
    ]
    assert found
    return found


def test_the_only_library_opened_by_name_is_cudas_and_only_if_it_is_loaded() -> None:
    calls = []
    for path in sources(".cpp", ".hpp", ".cu"):
        text = path.read_text(encoding="utf-8")
        calls += re.findall(r"\bdlm?open\s*\((.*?)\)", text)
    assert calls == ['"libcuda.so.1", RTLD_NOW | RTLD_NOLOAD'] * len(calls)
    for path in sources(".py"):
        text = path.read_text(encoding="utf-8")
        opened = re.findall(r"\b(?:CDLL|PyDLL|LoadLibrary|dlopen)\((.*?)\)", text)
        assert set(opened) <= {"None"}, path


def test_the_environment_is_asked_for_two_numbers_and_nothing_else() -> None:
    asked = {}
    for path in sources(".cpp", ".hpp", ".cu"):
        text = path.read_text(encoding="utf-8")
        if "getenv" in text:
            asked[path.name] = re.findall(r'"([A-Z_]+)"', text)
    assert asked == {
        "parallel.cpp": ["DLBRIDGE_NUM_THREADS", "OMP_NUM_THREADS"],
        "host_memory.cpp": ["DLBRIDGE_POOL_BYTES"],
    }
    for path in sources(".py"):
        text = path.read_text(encoding="utf-8")
        if path.parent.name != "doctor":  # which shows what is set
            assert not re.search(r"getenv|environ(?!\.setdefault)", text), path


DECOYS = """
import sys, types
sys.path.insert(0, {decoys!r})
import numpy as np, torch, dlbridge
from dlbridge import _torch

release = torch.__version__.partition("+")[0]
name = "_torch_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in release) + "_abi1"
real = _torch.load_companion()
found = sys.modules.get("dlbridge." + name)
assert found is None or found.__file__.startswith({package!r}), found.__file__
assert dlbridge.to_numpy(torch.ones(2)).tolist() == [1, 1]
# A version is only ever part of a name within the package.
for version in ("../../decoy", "{decoys}/decoy", "..decoy", "decoy\\0", "2.0;import decoy"):
    torch.__version__ = version
    assert _torch.load_companion() is None, version
opened = [line for line in open("/proc/self/maps") if "decoy" in line]
assert not opened, opened
assert not [module for module in sys.modules if "decoy" in module]
print("road:", dlbridge._core.torch_road())
"""


@asan
def test_the_environment_cannot_name_the_companion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoys lie in the working folder, on Python's path, and where variables could point to."""
    import torch

    decoys = tmp_path / "decoys"
    decoys.mkdir()
    release = torch.__version__.partition("+")[0]
    companion = "_torch_" + re.sub(r"[^0-9A-Za-z]", "_", release) + "_abi1"
    suffix = "".join(Path(dlbridge._core.__file__).suffixes[-2:])
    for name in (companion, "_core", "_cuda", "decoy", "libcuda.so.1"):
        (decoys / f"{name}{suffix}").write_bytes(b"no library at all")
        (decoys / f"{name}.py").write_text("raise SystemExit('a decoy was imported')\n")
    for name in ("DLBRIDGE_COMPANION", "DLBRIDGE_PATH", "DLBRIDGE_NUM_THREADS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(decoys))
    path = [str(Path(each).resolve()) for each in os.environ["PYTHONPATH"].split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))  # it may be told from this folder
    monkeypatch.chdir(decoys)
    out = run_python("-c", DECOYS.format(decoys=str(decoys), package=str(PACKAGE)))
    assert out.startswith("road:")


FAKE_DRIVER = """
#include <cstdio>
__attribute__((constructor)) static void loaded() { std::puts("the fake driver was loaded"); }
extern "C" int cuCtxSynchronize() { std::puts("and called"); return 0; }
"""

MANAGED_MEMORY = """
import dlbridge
from dlb_support import make_f32
capsule, _ = make_f32(device=(13, 0))
try:
    print(dlbridge.to_numpy(capsule).tolist())
except dlbridge.ConversionRefused as error:
    print(error)
"""


@asan
def test_managed_memory_does_not_load_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "driver.cpp"
    source.write_text(FAKE_DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    # What is in the trap does spring: asked for by name, it is found.
    found = run_python("-c", "import ctypes; ctypes.CDLL('libcuda.so.1')")
    out = run_python("-c", MANAGED_MEMORY)
    assert "the fake driver was loaded" in found
    if any(binary.name.startswith("_cuda.") for binary in BINARIES):
        pytest.skip("NVIDIA's runtime, where it is built, looks for its driver itself")
    assert "fake driver" not in out


def test_python_of_the_package_evaluates_no_text() -> None:
    for path in sources(".py"):
        if "doctor" in path.parts or "testing" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(?:eval|exec)\(|allow_pickle|shell=True", text), path
        # loads() says whom it trusts; a note is read with no class but containers.
        assert path.parent.name == "processes" or not re.search(r"\bpickle\b", text), path
