"""Interpreters other than the main one, modules that are loaded again, and the GIL."""

from __future__ import annotations

import sys
import sysconfig

import pytest
from dlb_support import run_child

SUBINTERPRETER = """
import sys, textwrap
import numpy as np
BEFORE = {before!r}
if BEFORE:
    import dlbridge
code = textwrap.dedent('''
    try:
        import dlbridge
    except ImportError as error:
        print("refused:", error, flush=True)
    else:
        print("imported", flush=True)
''')
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    config = "isolated" if {isolated!r} else "legacy"
    other = interpreters.create(config)
else:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated={isolated!r})
interpreters.run_string(other, code)
interpreters.destroy(other)
import dlbridge
print(dlbridge.to_numpy(dlbridge.from_dlpack(np.arange(3.0))).sum())
"""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("isolated", [True, False])
def test_a_subinterpreter_is_told_that_it_cannot_import(isolated: bool, before: bool) -> None:
    refused, total = run_child(SUBINTERPRETER.format(isolated=isolated, before=before)).splitlines()
    assert refused.startswith("refused: ")
    assert "sub-interpreter" in refused or "subinterpreters" in refused  # CPython's own, from 3.12
    assert total == "3.0"  # and the main one does not suffer


def test_the_compiled_module_may_be_loaded_again() -> None:
    out = run_child(
        """
import sys, importlib
import numpy as np, dlbridge
kept = dlbridge.from_dlpack(np.arange(3.0))
del sys.modules["dlbridge._core"]
again = importlib.import_module("dlbridge._core")
assert again.ManagedTensor is dlbridge.ManagedTensor
assert again.to_numpy(kept).sum() == 3 and dlbridge.to_numpy(again.from_dlpack(kept)).sum() == 3
for name in [name for name in sys.modules if name.partition(".")[0] == "dlbridge"]:
    del sys.modules[name]
import dlbridge
assert dlbridge.to_numpy(kept).sum() == 3
print("done")
"""
    )
    assert out == "done\n"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its GIL"
)
def test_free_threaded_python_turns_the_gil_on() -> None:
    import dlbridge  # noqa: F401

    assert sys._is_gil_enabled()
