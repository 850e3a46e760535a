"""The command ``dlbridge``, also as ``python -m dlbridge``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["doctor"]:  # it has a parser of its own
        from dlbridge.doctor import main as doctor

        return doctor(given[1:])
    parser = argparse.ArgumentParser(prog="dlbridge", description="Tensors across libraries.")
    parser.add_argument("--version", action="store_true", help="print it")
    parser.add_argument("--include", action="store_true", help="print the folder of the headers")
    parser.add_argument("--cmake-dir", action="store_true", help="print CMake's dlbridge_DIR")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands.add_parser(
        "doctor", help="which of the installed libraries conform to DLPack, and who reaches whom"
    )
    explain = commands.add_parser(
        "explain", help="what a crossing would do with an array of a file"
    )
    explain.add_argument("file", help="an .npy file, which is mapped")
    explain.add_argument("target", help="numpy, torch, jax, ...")
    explain.add_argument("--policy", help="strict, host, zero_copy or snapshot")
    explain.add_argument("--dtype", help="the type to cast to")
    trace = commands.add_parser("trace", help="run a script, then print what crossed on which line")
    trace.add_argument("--html", metavar="FILE", help="write the table there, as a page")
    trace.add_argument("script")
    trace.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own")
    asked = parser.parse_args(given)
    if asked.version or asked.include or asked.cmake_dir:
        import dlbridge

        if asked.version:
            print(dlbridge.__version__)
        if asked.include:
            print(dlbridge.get_include())
        if asked.cmake_dir:
            print(dlbridge.cmake_dir())
    elif asked.command == "explain":
        return _explain(asked)
    elif asked.command == "trace":
        return _trace(asked)
    else:
        parser.print_help(sys.stderr)
        return 2
    return 0


def _explain(asked: argparse.Namespace) -> int:
    """1 where the crossing is refused."""
    import numpy as np

    import dlbridge

    try:
        array = np.load(asked.file, mmap_mode="c")  # as writable as the array was
        plan = dlbridge.explain(array, asked.target, policy=asked.policy, dtype=asked.dtype)
    except (OSError, ValueError, TypeError) as error:
        print(f"dlbridge explain: {error}", file=sys.stderr)
        return 2
    print(plan)
    return int(plan.refused)


def _trace(asked: argparse.Namespace) -> int:
    """The script's own end is this one's, once the ledger was printed."""
    import runpy
    from pathlib import Path

    import dlbridge

    if not Path(asked.script).is_file():
        print(f"dlbridge trace: there is no file {asked.script}", file=sys.stderr)
        return 2
    sys.argv = [asked.script, *asked.arguments]
    sys.path.insert(0, str(Path(asked.script).resolve().parent))
    log = dlbridge.trace(threads=True)
    try:
        with log:
            runpy.run_path(asked.script, run_name="__main__")
    finally:
        print(log, file=sys.stderr)
        if asked.html:
            log.html(asked.html)
    return 0


if __name__ == "__main__":
    sys.exit(main())
