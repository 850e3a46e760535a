"""Counts the instructions of small crossings and holds them against those that were agreed on.

make instructions                                          checks
python bench/instructions/check.py SWITCH PROGRAM --write  agrees on what is counted now

Times wobble; instructions do not. They depend on the compiler, CPython, torch and NumPy, so the
margin leaves room for other builds, and an addition of a tenth shows. SWITCH is the library built
from switch.cpp; PROGRAM, from crossings.cpp, counts the crossings of C++.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
AGREED = HERE / "agreed.json"
CALLS = 500


def counted(command: list[str]) -> dict[str, int]:
    """Instructions of one call, by the name that the command gives to its crossings."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                "--collect-atstart=no",
                f"--callgrind-out-file={folder}/out",
                *command,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )
        found: dict[str, int] = {}
        for path in Path(folder).iterdir():
            text = path.read_text(encoding="utf-8", errors="replace")
            name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            if name and total:
                found[name[1]] = int(total[1]) // CALLS
    return dict(sorted(found.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("switch", help="the library built from switch.cpp")
    parser.add_argument("program", help="built from crossings.cpp")
    parser.add_argument("--write", action="store_true", help="agree on what is counted now")
    options = parser.parse_args()
    found = counted([sys.executable, str(HERE / "counted.py"), options.switch])
    found |= counted([options.program])
    if options.write:
        # What torch's own doors take is counted for comparison, and is not ours to hold.
        ours = {name: count for name, count in found.items() if not name.startswith("torch's")}
        agreed = {"margin": 0.1, "instructions": ours}
        AGREED.write_text(json.dumps(agreed, indent=2) + "\n", encoding="utf-8")
    agreed = json.loads(AGREED.read_text(encoding="utf-8"))
    wanted: dict[str, int] = agreed["instructions"]
    over = 0
    for name, most in wanted.items():
        count = found.get(name)
        bad = count is None or count > most * (1 + agreed["margin"])
        over += bad
        print(f"{name:32} {count} instructions, agreed {most}{'  TOO MANY' if bad else ''}")
    for name in sorted(found.keys() - wanted.keys()):
        print(f"{name:32} {found[name]} instructions")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
