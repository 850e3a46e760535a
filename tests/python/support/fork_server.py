"""Run in a child process: forks children of its own, which find torch imported already.

    python -c "import fork_server; exec(fork_server.asked())"

Importing torch takes seconds, a fork of a process that has it hundredths of one. Nothing has
crossed before the fork, and a child that comes to the end of its code ends as any interpreter does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from tempfile import TemporaryFile
from types import CodeType

import dlb_support  # noqa: F401 and with it dlbridge, the probe and NumPy
import torch  # noqa: F401


def asked() -> CodeType:
    """Comes back in the children only, each with its code; for each line of input there is one."""
    for line in sys.stdin:
        code, arguments, timeout = json.loads(line)
        with TemporaryFile("w+", errors="replace") as out, TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                nothing = os.open(os.devnull, os.O_RDONLY)
                for descriptor, file in enumerate((nothing, out.fileno(), err.fileno())):
                    os.dup2(file, descriptor)
                signal.alarm(timeout)  # ends it, whatever it waits for
                sys.argv[1:] = arguments
                return compile(code, "<string>", "exec", dont_inherit=True)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for file in (out, err):
                file.seek(0)
            print(json.dumps([status, out.read(), err.read()]), flush=True)
    sys.exit()
