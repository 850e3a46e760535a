"""The command ``dlbridge``, also as ``python -m dlbridge``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["doctor"]:
        from dlbridge.doctor import main as doctor

        return doctor(given[1:])
    if given == ["--version"]:
        import dlbridge

        print(dlbridge.__version__)
        return 0
    print(
        "usage: dlbridge doctor [--help]\n       dlbridge --version\n\n"
        "doctor: which of the installed array libraries conform to DLPack, and who reaches whom",
        file=sys.stdout if given in (["--help"], ["-h"]) else sys.stderr,
    )
    return 0 if given in (["--help"], ["-h"]) else 2


if __name__ == "__main__":
    sys.exit(main())
