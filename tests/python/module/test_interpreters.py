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
importlib.reload(dlbridge)
assert dlbridge.to_numpy(kept).sum() == 3
print("done")
"""
    )
    assert out == "done\n"


def test_a_package_that_was_taken_out_of_sys_modules_comes_back() -> None:
    """A second one's blocks and classes would be others than those that the module knows."""
    out = run_child(
        """
import sys
import numpy as np
sys.modules["numpy"] = None
try:
    import dlbridge
except ImportError:
    del sys.modules["numpy"]
import dlbridge  # the import that failed does not count
import dlbridge.ledger.blocks as blocks
kept = dlbridge.from_dlpack(np.arange(3.0))
first, refusal = dlbridge, dlbridge.ConversionRefused
for name in [name for name in sys.modules if name.partition(".")[0] == "dlbridge"]:
    del sys.modules[name]
import dlbridge
import dlbridge.ledger.blocks as again
assert dlbridge is first and again is blocks and dlbridge.ConversionRefused is refusal
with dlbridge.policy("strict"), dlbridge.trace() as ledger:
    dlbridge.to_numpy(kept)
    try:
        dlbridge.to_numpy(kept, dtype="int8")
    except refusal:
        print(len(ledger))
"""
    )
    assert out == "2\n"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its GIL"
)
def test_free_threaded_python_turns_the_gil_on() -> None:
    import dlbridge  # noqa: F401

    assert sys._is_gil_enabled()
