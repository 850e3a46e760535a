"""Takes out one check, condition, reference, release or wait after another, and asks the tests.

    python tests/mutation/mutate.py --build build-mutants --sample 250

A copy of the tree is built once with all mutants in it (rules.py); then the tests run for each, in
a process forked for it, until one fails. What no test notices survives: docs/testing.md explains
it, or a test is missing. Writes a line of JSON for each to ``BUILD/mutants.jsonl``, and goes on
where it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rooms import MOST, ROOMS, Room, Round
from rules import RULES, Mutant, mutants_of, with_switches

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = (
    "CMakeLists.txt", "bench", "bridges", "cmake", "examples", "lib", "pyproject.toml", "tests",
)  # fmt: skip
SUPPORT = "tests/python/support"
MODULES = (
    "dlbridge_python", "dlbridge_torch_companions", "dlbridge_probe", "dlbridge_guarded",
    "dlbridge_guarded_torch",
)  # fmt: skip
CASTERS = ("dlbridge_nanobind_casters", "dlbridge_pybind11_casters")
# Importing them opens the guarded device, which a fork would lose: collected after it.
FORK_FIRST = ("test_devices", "test_device_targets", "test_devices_torch")
ASLEEP_SECONDS = 30  # in which no test begins or ends
PROCESSOR_SECONDS = 600  # of one process: then it runs in circles


def limit_processor() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))


def is_asleep(session: int) -> bool:
    """Whether no thread of its processes runs, or waits for the processor or a disk."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(int(folder.name)) == session:
                for stat in folder.glob("task/*/stat"):
                    if stat.read_text().rsplit(") ", 1)[1][0] in "RD":
                        return False
    return True


class InChild(BaseException):
    """In a forked process: these tests are to be run here."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


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
        self.rounds = [Round(most=MOST), Round(most=MOST, others=True)]
        self.items: list[Any] = []  # the tests of all rooms
        self.wrong = ""  # why it cannot be asked
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
        """Loads what every forked process needs, and lets nothing cross."""
        package = self.build / "python"
        sys.path[:0] = [str(package), str(self.source), str(self.source / SUPPORT)]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(package), str(self.source)])
        os.environ |= {"OMP_NUM_THREADS": "1", "MALLOC_PERTURB_": "221"}
        for name in self.imported_by_sources():
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    def imported_by_sources(self) -> list[str]:
        """Half of torch, which takes long: but its autograd cannot run before a fork."""
        code = "import sys\nfrom torch_sources import SOURCES\nfor make in SOURCES.values():\n"
        code += "    with make():\n        pass\nprint('\\n'.join(sys.modules))"
        where = os.pathsep.join([os.environ["PYTHONPATH"], str(self.source / SUPPORT)])
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": where},
        )
        return [name for name in done.stdout.split() if name.startswith("torch.")]

    def collect(self, ask: Callable[[], None]) -> None:
        """Collects the tests once, and calls ``ask`` before the first has run. In a process that
        ``ask`` forked, goes on to run those that it was forked for."""
        parent = os.getpid()
        tree = self

        class Asking:
            @pytest.hookimpl(trylast=True)
            def pytest_collection_modifyitems(self, items: list[Any]) -> None:
                tree.items = list(items)
                items.clear()
                try:
                    ask()
                except InChild as child:
                    items[:] = child.items
                except SystemExit as ended:  # which pytest would take for a fault of its own
                    tree.wrong = str(ended)

        os.chdir(self.source)
        names = dict.fromkeys(name for room in ROOMS for name in room.pytest)
        status = self.pytest([name for name in names if name not in FORK_FIRST], Asking())
        if os.getpid() != parent:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        if self.wrong:
            raise SystemExit(self.wrong)

    @staticmethod
    def pytest(names: list[str], plugin: Any) -> int:
        return pytest.main(
            [str(next(Path("tests/python").rglob(f"{name}.py"))) for name in names]
            + ["-v", "-x", "-s", "--tb=short", "--no-header", "--hypothesis-seed=0"]
            + ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler"]
            + ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            + ["-k", "not first_crossing and not every_function"],
            plugins=[plugin],
        )

    def noticed(self, number: int, room: Room, rounds: int = 9) -> str:
        """What noticed the mutant, or nothing."""
        for program, filtered in room.programs:
            if why := self.run_program(number, program, filtered):
                return why
        for asked in self.rounds[:rounds]:
            items = asked.of(self.items, room)
            names = [name for name in room.pytest if name in FORK_FIRST]
            if names and (why := self.run_pytest(number, room, asked, names)):
                return why
            if items and (why := self.run_pytest(number, room, asked, [])):
                return why
        return ""

    def run_program(self, number: int, program: str, filtered: str) -> str:
        site = sysconfig.get_path("purelib")
        command = [str(self.build / program), f"--gtest_filter={filtered}", "--gtest_fail_fast"]
        with self.log.open("w") as out:
            child = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=limit_processor,
                env=os.environ | {"DLBRIDGE_MUTANT": str(number), "PYTHONPATH": site},
            )
        why = self.outcome(program, child.pid)
        child.returncode = 0  # it has been waited for
        return why

    def run_pytest(self, number: int, room: Room, asked: Round, names: list[str]) -> str:
        """Runs these files in a forked process, or the tests that were collected."""
        sys.stdout.flush()
        self.log.write_text("")
        child = os.fork()
        if child == 0:
            self.become(number)
            if names:
                self.run_files(room, asked, names)
            raise InChild(asked.of(self.items, room))
        return self.outcome("pytest", child)

    def run_files(self, room: Room, asked: Round, names: list[str]) -> NoReturn:
        class Some:
            @pytest.hookimpl(trylast=True)
            def pytest_collection_modifyitems(self, items: list[Any]) -> None:
                items[:] = asked.of(items, room)

        status = self.pytest(names, Some())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status)

    def outcome(self, what: str, child: int) -> str:
        """Waits for a session of processes: until it ends, or sleeps for long and says nothing. On
        a busy machine tests take any time, but those that wait for the processor do not sleep."""
        said, since = 0, time.monotonic()
        while time.monotonic() - since < ASLEEP_SECONDS:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return self.first_failure(what, os.waitstatus_to_exitcode(status))
            if self.log.stat().st_size != said or not is_asleep(child):
                said, since = self.log.stat().st_size, time.monotonic()
            time.sleep(0.3)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return f"{what}: hung in {self.last_test()}"

    def become(self, number: int) -> None:
        """Turns the mutant on in this process, whose output goes to the log."""
        os.setsid()
        limit_processor()
        out = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        faulthandler.enable(out)
        os.environ["DLBRIDGE_MUTANT"] = str(number)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith(str(self.build)) and ".so" in file:
                with contextlib.suppress(ValueError):  # no mutants in it
                    ctypes.c_int.in_dll(ctypes.CDLL(file), "dlbridge_mutant").value = number

    def first_failure(self, what: str, status: int) -> str:
        if status == 0:
            return ""
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith(("FAILED", "ERROR ", "[  FAILED  ]")):
                return f"{what}: {line[:200]}"
        return f"{what}: exit status {status} in {self.last_test()}"

    def last_test(self) -> str:
        said = self.log.read_text(errors="replace")
        begun = re.findall(
            r"^tests/\S+::(.+?)(?: PASSED| SKIPPED| *$)|RUN      \] (\S+)", said, re.M
        )
        return "".join(begun[-1]) if begun else "none"


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


def survivors() -> dict[str, str]:
    """Why those survive that do, as somebody found who looked."""
    return json.loads((HERE / "survivors.json").read_text())


def table(results: list[dict[str, Any]]) -> str:
    """What came of it, for docs/testing.md."""
    lines = ["| taken out | mutants | noticed |", "|---|---|---|"]
    rules = Counter(each["rule"] for each in results)
    noticed = Counter(each["rule"] for each in results if each["outcome"] == "killed")
    for rule in sorted(rules):
        lines.append(f"| {RULES[rule]} | {rules[rule]} | {noticed[rule]} |")
    lines.append(f"| all | {len(results)} | {noticed.total()} |")
    lines += ["", "| survivor | why |", "|---|---|"]
    reasons = survivors()
    for each in results:
        if each["outcome"] != "killed":
            shown = each["mutant"].replace("|", "\\|")
            reason = reasons.get(each["text"], "not explained")
            lines.append(f"| `{shown}` | {reason} |")
    return "\n".join(lines)


def devices_table(results: list[dict[str, Any]]) -> str:
    """The first test that fails without each rule of devices, for docs/devices.md."""
    lines = ["| without the rule that | the first test that fails |", "|---|---|"]
    for each in results:
        if each["rule"] == "device":
            name = each["mutant"].split(": device: ", 1)[1]
            reason = survivors().get(each["text"], "not explained")
            by = re.sub(r"^.*::|^.*FAILED  \] | - .*| \(\d+ ms\)| \(.*GetParam.*", "", each["by"])
            lines.append(f"| {name} | `{by}` |" if by else f"| {name} | none: {reason} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build-mutants")
    parser.add_argument("--sample", type=int, default=250, help="how many of all mutants")
    parser.add_argument("--only", default="", help="those whose description has this text")
    parser.add_argument("--part", default="1/1", help="of several at a time, which one this is")
    parser.add_argument("--built", action="store_true", help="go on with what was built and passed")
    parser.add_argument("--again", action="store_true", help="ask again what survived unexplained")
    parser.add_argument("--processes", action="store_true", help="ask the slowest tests as well")
    parser.add_argument("--list", action="store_true", help="name them, and build nothing")
    parser.add_argument("--table", action="store_true", help="show what is known, and run nothing")
    arguments = parser.parse_args()
    mutants = all_mutants()  # of the tree as it is now: it may change under a long run
    arguments.build.mkdir(parents=True, exist_ok=True)
    tree = Tree(arguments.build.resolve())
    if arguments.list:
        listed = chosen(mutants, arguments.sample, arguments.only, tree.out)
        for _, mutant, _ in listed:
            print(mutant)
        print(len(listed), "mutants", dict(Counter(mutant.rule for _, mutant, _ in listed)))
        return
    results = arguments.build / "mutants.jsonl"
    known: dict[str, dict[str, Any]] = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        known[json.loads(line)["mutant"]] = json.loads(line)
    if not arguments.table:
        if not arguments.built:
            tree.make(mutants)
        if arguments.processes:
            tree.rounds.append(Round(processes=True))
        tree.load()
        picked = chosen(mutants, arguments.sample, arguments.only, tree.out)
        tree.collect(lambda: run(tree, arguments, picked, known))
    todo = chosen(mutants, arguments.sample, arguments.only, tree.out)
    found = [known[str(mutant)] for _, mutant, _ in todo if str(mutant) in known]
    print(table(found), devices_table(found), sep="\n\n")
    reasons = survivors()
    if any(each["outcome"] != "killed" and each["text"] not in reasons for each in found):
        raise SystemExit("some survive without an explanation in tests/mutation/survivors.json")


def run(
    tree: Tree,
    arguments: argparse.Namespace,
    todo: list[tuple[int, Mutant, Room]],
    known: dict[str, dict[str, Any]],
) -> None:
    """Asks the tests of each that is not known, and writes down what came of it."""
    checked: set[tuple[Any, Any]] = set()
    for room in dict.fromkeys(room for _, _, room in todo):
        same = (room.programs, frozenset(room.pytest))
        if same not in checked:
            checked.add(same)
            began = time.monotonic()
            if why := tree.noticed(-1, room, 1 if arguments.built else 9):
                raise SystemExit(f"the tests of {room.files[0]} fail without a mutant: {why}")
            took = round(time.monotonic() - began)
            print(f"{took:4} s without a mutant: {room.files[0]} and the like", flush=True)
    reasons = survivors()
    part, parts = (int(each) for each in arguments.part.split("/"))
    for number, mutant, room in todo[part - 1 :: parts]:
        before = known.get(str(mutant))
        lives = before and before["outcome"] != "killed" and before["text"] not in reasons
        if before and not (arguments.again and lives):
            continue
        began = time.monotonic()
        noticed = tree.noticed(number, room)
        outcome = "killed" if noticed else "survived"
        known[str(mutant)] = {
            "mutant": str(mutant),
            "text": mutant.without_line(),
            "rule": mutant.rule,
            "outcome": outcome,
            "by": noticed,
            "seconds": round(time.monotonic() - began),
        }
        with (arguments.build / "mutants.jsonl").open("a") as file:
            file.write(json.dumps(known[str(mutant)]) + "\n")
        print(f"{outcome:9} {known[str(mutant)]['seconds']:4} s  {mutant}  {noticed}", flush=True)


if __name__ == "__main__":
    main()
