"""Takes out one check, condition, reference, release or wait after another, and asks the tests.

    python tests/mutation/mutate.py --build build-mutants --sample 150

A copy of the tree is built once with all mutants in it (rules.py); then the tests run for each, in
a process forked for it, until one fails. What no test notices survives: docs/testing.md explains
it, or a test is missing. Writes a line of JSON for each to ``BUILD/mutants.jsonl``, and goes on
where it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules import Mutant, mutants_of, with_switches

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = ("CMakeLists.txt", "bridges", "cmake", "lib", "pyproject.toml", "tests", "examples")
MODULES = ("dlbridge_python", "dlbridge_torch_companion", "dlbridge_probe")
CASTERS = ("dlbridge_nanobind_casters", "dlbridge_pybind11_casters")
PROGRAM_SECONDS, PYTEST_SECONDS = 240, 900


@dataclass(frozen=True)
class Room:
    """Files that are tested alike: by C++ programs (with a filter), then by files of pytest's."""

    files: tuple[str, ...]
    programs: tuple[tuple[str, str], ...]
    pytest: tuple[str, ...]


SRC = "bridges/python/src/"
LIB_TESTS = ("dlbridge_lib_tests", "-Copy*:*Random*:*random*")
NUMPY_TESTS = ("dlbridge_numpy_tests", "*")
# Those that look at the most in the shortest time come first.
PYTHON_TESTS = (
    "test_bad_capsules", "test_release", "test_managed_tensor", "test_exchange_table",
    "test_producers", "test_interfaces", "test_arguments", "test_trees", "test_registry",
    "test_numpy_specials", "test_policy_capsules", "test_policy_torch_to_numpy",
    "test_policy_numpy_to_torch", "test_round_trip", "test_explain_and_refusal", "test_rules",
    "test_testing_kit", "test_ledger", "test_threads", "test_failing_calls",
    "test_buffer_lifetime", "test_torch_lifetime",
)  # fmt: skip
TORCH_TESTS = (
    "test_policy_torch_to_numpy", "test_policy_numpy_to_torch", "test_round_trip", "test_release",
    "test_explain_and_refusal", "test_threads", "test_torch_lifetime", "test_failing_calls",
    "test_rules",
)  # fmt: skip
ROOMS = (
    Room(
        ("lib/src/managed_tensor.cpp", "lib/src/plan.cpp", "lib/src/layout.cpp",
         "lib/src/transfer.cpp", "lib/src/live_count.cpp"),
        (LIB_TESTS,), PYTHON_TESTS,
    ),
    Room(
        ("bridges/numpy/src/numpy.cpp", "bridges/numpy/src/python_lease.cpp"),
        (NUMPY_TESTS,), PYTHON_TESTS,
    ),
    Room(
        tuple(SRC + name for name in (
            "capsule.cpp", "exchange.cpp", "generic.cpp", "interfaces.cpp", "kinds.cpp",
            "convert.cpp", "errors.cpp", "managed_tensor_type.cpp", "arguments.cpp", "trees.cpp",
            "registry.cpp")),
        (), PYTHON_TESTS,
    ),
    Room((SRC + "portable_torch.cpp", "bridges/python/dlbridge/_torch.py"), (), TORCH_TESTS),
    Room(
        ("bridges/torch/include/dlbridge/torch.hpp",
         "bridges/torch/include/dlbridge/torch_storage.hpp"),
        (), TORCH_TESTS,
    ),
)  # fmt: skip


def all_mutants() -> list[tuple[int, Mutant, Room]]:
    """Every mutant of every room, with its number: of a file's own range, so that a change of one
    file leaves the others as they were built."""
    files = [(file, room) for room in ROOMS for file in room.files]
    return [
        (10000 * place + index, mutant, room)
        for place, (file, room) in enumerate(files)
        for index, mutant in enumerate(mutants_of((ROOT / file).read_text(), file))
    ]


class Tree:
    """The copy with the mutants in it, and its build."""

    def __init__(self, build: Path) -> None:
        self.build = build / "build"
        self.source = build / "tree"
        self.log = build / f"log-{os.getpid()}"
        self.left_out = build / "left_out.json"
        self.out: set[str] = set()  # mutants that do not compile
        if self.left_out.exists():
            self.out = set(json.loads(self.left_out.read_text()))

    def write(self, mutants: list[tuple[int, Mutant, Room]]) -> None:
        """Copies the tree. A file that is as it was is not touched, and not built again."""
        for name in COPIED:
            for path in [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"):
                relative = path.relative_to(ROOT)
                if path.is_dir() or "__pycache__" in relative.parts:
                    continue
                text = path.read_bytes()
                here = [
                    (number, mutant)
                    for number, mutant, _ in mutants
                    if mutant.file == str(relative) and str(mutant) not in self.out
                ]
                if here:
                    switched = with_switches(text.decode(), here, "mutant_is_on")
                    if path.suffix == ".py":
                        switched = switched.replace(
                            "import torch\n", "import torch\nfrom mutant import mutant_is_on\n", 1
                        )
                    text = switched.encode()
                target = self.source / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or target.read_bytes() != text:
                    target.write_bytes(text)

    def make(self, mutants: list[tuple[int, Mutant, Room]]) -> None:
        """Builds it, without the mutants that the compiler takes none of."""
        header = self.source / "mutant.hpp"
        configure = [
            "cmake", "-G", "Ninja", "-S", str(self.source), "-B", str(self.build),
            "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS=-O1 -include {header}",
            "-DDLBRIDGE_TESTS=ON", "-DDLBRIDGE_WERROR=OFF", "-DDLBRIDGE_CUDA=OFF",
            f"-DPython3_EXECUTABLE={sys.executable}",
        ]  # fmt: skip
        programs = {program for room in ROOMS for program, _ in room.programs}
        build = ["cmake", "--build", str(self.build), "-j", "2", "--", "-k", "0"]
        build += [*MODULES, *CASTERS, *sorted(programs)]
        for _ in range(8):
            self.write(mutants)
            for name in ("mutant.hpp", "mutant.py"):
                shutil.copy2(HERE / name, self.source)
            subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
            done = subprocess.run(build, check=False, capture_output=True, text=True)
            self.log.write_text(done.stdout + done.stderr)
            if done.returncode == 0:
                return
            wrong = self.not_compiled(done.stdout, mutants)
            print(f"{len(wrong)} mutants do not compile", flush=True)
            if not wrong - self.out:
                break
            self.out |= wrong
            self.left_out.write_text(json.dumps(sorted(self.out)))
        raise SystemExit(f"the tree does not build: see {self.log}")

    def not_compiled(self, said: str, mutants: list[tuple[int, Mutant, Room]]) -> set[str]:
        places = set(re.findall(r"([\w./-]+):(\d+):\d+: (?:error|  required from here)", said))
        return {
            str(mutant)
            for file, line in places
            for _, mutant, _ in mutants
            if file.endswith(mutant.file)
            and mutant.line <= int(line) <= mutant.line + mutant.before.count("\n")
        }

    # --- the tests -----------------------------------------------------------------------------

    def load(self) -> None:
        """Loads what every forked process needs: the libraries, and ours before any crossing."""
        package = self.build / "python"
        sys.path[:0] = [str(package), str(self.source), str(self.source / "tests/python")]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(package), str(self.source)])
        os.environ |= {"OMP_NUM_THREADS": "1", "MALLOC_PERTURB_": "221"}
        import hypothesis  # noqa: F401
        import ml_dtypes  # noqa: F401
        import pytest  # noqa: F401
        import torch  # noqa: F401

        for name in self.imported_by_sources():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        import dlbridge

        self.core = dlbridge._core.__file__

    def imported_by_sources(self) -> list[str]:
        """Half of torch, which takes long: but its autograd cannot run before a fork."""
        code = "import sys\nfrom torch_sources import SOURCES\nfor make in SOURCES.values():\n"
        code += "    with make():\n        pass\nprint('\\n'.join(sys.modules))"
        where = os.pathsep.join([os.environ["PYTHONPATH"], str(self.source / "tests/python")])
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": where},
        )
        return [name for name in done.stdout.split() if name.startswith("torch.")]

    def noticed(self, number: int, room: Room) -> str:
        """What noticed the mutant, or nothing."""
        for program, chosen in room.programs:
            if why := self.run_program(number, program, chosen):
                return why
        return self.run_pytest(number, room)

    def run_program(self, number: int, program: str, chosen: str) -> str:
        site = sysconfig.get_path("purelib")
        command = [str(self.build / program), f"--gtest_filter={chosen}", "--gtest_fail_fast"]
        with self.log.open("w") as out:
            try:
                status = subprocess.run(
                    command,
                    check=False,
                    stdout=out,
                    stderr=out,
                    timeout=PROGRAM_SECONDS,
                    env=os.environ | {"DLBRIDGE_MUTANT": str(number), "PYTHONPATH": site},
                ).returncode
            except subprocess.TimeoutExpired:
                return f"{program}: took too long"
        return self.first_failure(program, status)

    def run_pytest(self, number: int, room: Room) -> str:
        child = os.fork()
        if child == 0:
            os.setsid()
            self.in_child(number, room)
        until = time.monotonic() + PYTEST_SECONDS
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return self.first_failure("pytest", os.waitstatus_to_exitcode(status))
            time.sleep(0.2)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "pytest: took too long"

    def in_child(self, number: int, room: Room) -> None:
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = 99
        try:
            os.environ["DLBRIDGE_MUTANT"] = str(number)
            ctypes.c_int.in_dll(ctypes.CDLL(self.core), "dlbridge_mutant").value = number
            os.chdir(self.source)
            import pytest

            files = [self.source / "tests/python" / f"{name}.py" for name in room.pytest]
            status = int(
                pytest.main(
                    ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"]
                    + ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
                    + ["-k", "not first_crossing and not every_function"]
                    + [str(file) for file in files if file.exists()]
                )
            )
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def first_failure(self, what: str, status: int) -> str:
        if status == 0:
            return ""
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith(("FAILED", "ERROR", "[  FAILED  ]", "Fatal")):
                return f"{what}: {line[:160]}"
        return f"{what}: exit status {status}"


def chosen(
    mutants: list[tuple[int, Mutant, Room]], sample: int, only: str, out: set[str]
) -> list[tuple[int, Mutant, Room]]:
    """That many mutants, the same every time, from all files and all rules in turn."""
    by_kind: dict[tuple[str, str], list[tuple[int, Mutant, Room]]] = {}
    for each in mutants:
        mutant = each[1]
        if only in str(mutant) and str(mutant) not in out:
            by_kind.setdefault((mutant.rule, mutant.file), []).append(each)
    for kind, found in by_kind.items():
        random.Random(str(kind)).shuffle(found)
    kinds = sorted(by_kind, key=str)
    random.Random(0).shuffle(kinds)
    picked = []
    while len(picked) < sample and any(by_kind.values()):
        picked += [by_kind[kind].pop() for kind in kinds if by_kind[kind]]
    return picked[:sample]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build-mutants")
    parser.add_argument("--sample", type=int, default=150, help="how many of all mutants")
    parser.add_argument("--only", default="", help="those whose description has this text")
    parser.add_argument("--part", default="1/1", help="of several at a time, which one this is")
    parser.add_argument("--built", action="store_true", help="go on with the tree that was built")
    parser.add_argument("--list", action="store_true", help="name them, and build nothing")
    arguments = parser.parse_args()
    mutants = all_mutants()  # of the tree as it is now: it may change under a long run
    if arguments.list:
        listed = chosen(mutants, arguments.sample, arguments.only, set())
        for _, mutant, _ in listed:
            print(mutant)
        print(len(listed), "mutants", dict(Counter(mutant.rule for _, mutant, _ in listed)))
        return
    arguments.build.mkdir(parents=True, exist_ok=True)
    tree = Tree(arguments.build.resolve())
    if not arguments.built:
        tree.make(mutants)
    tree.load()
    for room in () if arguments.built else ROOMS:
        if why := tree.noticed(-1, room):
            raise SystemExit(f"the tests of {room.files[0]} fail without a mutant: {why}")
        print(f"no mutant: the tests of {room.files[0]} and the like pass", flush=True)
    results = arguments.build / "mutants.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    known: dict[str, dict[str, Any]] = {}
    for line in lines:
        known[json.loads(line)["mutant"]] = json.loads(line)
    part, parts = (int(each) for each in arguments.part.split("/"))
    todo = chosen(mutants, arguments.sample, arguments.only, tree.out)
    for number, mutant, room in todo[part - 1 :: parts]:
        if str(mutant) in known:
            continue
        began = time.monotonic()
        noticed = tree.noticed(number, room)
        outcome = "killed" if noticed else "survived"
        seconds = round(time.monotonic() - began)
        known[str(mutant)] = {
            "mutant": str(mutant),
            "rule": mutant.rule,
            "outcome": outcome,
            "by": noticed,
            "seconds": seconds,
        }
        with results.open("a") as file:
            file.write(json.dumps(known[str(mutant)]) + "\n")
        print(f"{outcome:9} {seconds:4} s  {mutant}  {noticed}", flush=True)
    counts = Counter(each["outcome"] for each in known.values())
    print(f"{counts['killed']} of {len(known)} mutants were noticed")


if __name__ == "__main__":
    main()
