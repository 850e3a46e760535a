"""Interpreters other than the main one, modules that are loaded again, and the GIL."""

from __future__ import annotations

import importlib.util
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
finders = len(sys.meta_path)
for name in [name for name in sys.modules if name.partition(".")[0] == "dlbridge"]:
    del sys.modules[name]
import dlbridge
import dlbridge.ledger.blocks as again
assert len(sys.meta_path) == finders
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


def test_a_package_that_was_taken_out_without_its_parts_comes_back_too() -> None:
    out = run_child(
        """
import sys
import numpy as np, dlbridge, dlbridge.testing
first = dlbridge
with dlbridge.policy("snapshot"):
    del sys.modules["dlbridge"]
    import dlbridge
    assert dlbridge is first and sys.modules["dlbridge"] is first and dlbridge.testing
    array = np.ones(3)
    print(np.shares_memory(dlbridge.to_numpy(dlbridge.from_dlpack(array)), array))
"""
    )
    assert out == "False\n"


def test_the_module_of_other_systems_refuses_and_ends_as_well() -> None:
    # Without a personality routine of its own, which the linker puts in on Linux alone.
    spec = importlib.util.find_spec("dlbridge_without_linux_core")
    if spec is None:
        pytest.skip("it is built with the tests, on Linux")
    out = run_child(
        f"""
import importlib.util, sys, threading
import numpy as np
import dlbridge_probe as probe
class OfOtherSystems:
    def find_spec(self, name, path=None, target=None):
        if name == "dlbridge._core":
            return importlib.util.spec_from_file_location(name, {spec.origin!r})
sys.meta_path.insert(0, OfOtherSystems())
import dlbridge

class Raises:
    def __dlpack__(self, **keywords):
        raise KeyError("its own")
    def __dlpack_device__(self):
        return (1, 0)

def cross():
    for source, refused in ((np.array(["text"]), dlbridge.ConversionRefused), (Raises(), KeyError)):
        try:
            dlbridge.from_dlpack(source)
        except refused:
            met.append(refused.__name__)
    probe.hold(dlbridge.capsule(np.ones(3))).release_on_thread()
met = []
thread = threading.Thread(target=cross)
thread.start()
thread.join()
kept = dlbridge.to_numpy(dlbridge.from_dlpack(np.ones(3)))
print(dlbridge._core.__file__ == {spec.origin!r}, *met)
"""
    )
    assert out == "True ConversionRefused KeyError\n"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its GIL"
)
def test_free_threaded_python_turns_the_gil_on() -> None:
    import dlbridge  # noqa: F401

    assert sys._is_gil_enabled()
