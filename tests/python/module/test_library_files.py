"""The files of dlbridge.libraries: every row is found by its names, and read when it is met."""

from __future__ import annotations

import importlib
from pathlib import Path

from dlb_support import run_python

from dlbridge import _registry, libraries


def test_every_row_is_found_by_its_names() -> None:
    for file in {*_registry._FILES.values()}:
        for row in importlib.import_module(f"dlbridge.libraries.{file}").ROWS:
            for name in (row.name, *row.modules):
                assert _registry._FILES[name] == file
    files = {path.stem for path in Path(libraries.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {*_registry._FILES.values()}


def test_the_rows_are_listed_in_their_order() -> None:
    names = [row.name for row in libraries.known()]
    ours = [name for name in _registry._FILES if name in names]
    assert names[: len(ours)] == ours


def test_a_row_is_read_when_its_library_is_met() -> None:
    out = run_python(
        "-c",
        """
import array, sys, dlbridge
def read():
    return sorted(name for name in sys.modules if name.startswith("dlbridge.libraries."))
assert read() == [], read()
dlbridge.to_numpy(array.array("f", [1]))
assert read() == ["dlbridge.libraries.buffers"], read()
class Thing:
    __array_interface__ = {"shape": (1,), "typestr": "|u1", "data": (0, False), "version": 3}
Thing.__module__ = "dpctl.tensor"
try:
    dlbridge.to_numpy(Thing())
except dlbridge.ConversionRefused:
    pass
print(read())
assert "torch" not in vars(dlbridge)
""",
    )
    assert out == "['dlbridge.libraries.buffers', 'dlbridge.libraries.dpnp']\n"
