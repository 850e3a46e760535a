"""The package's rooms: what imports what, and that every row is found by its name."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dlb_support import run_python

import dlbridge
from dlbridge import _registry, libraries

PACKAGE = Path(dlbridge.__file__).resolve().parent
FILES = {
    ".".join(("dlbridge", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}
PUBLIC = ("dlbridge.functions", "dlbridge.engines", "dlbridge.testing", "dlbridge.doctor")
# What has no public name: the walker of trees, until it has one, and what only C can do.
ALLOWED = {"dlbridge._trees", "dlbridge._core.counting_deleters"}


def imported(module: str) -> Iterator[str]:
    """Modules of the package, and names in it, that a module imports: at any time, for any use."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("dlbridge"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlbridge"):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def module_of(name: str) -> str:
    return name if name in MODULES else name.rpartition(".")[0]


def test_no_import_runs_in_a_circle() -> None:
    # The package itself is left out: it shows what the rooms make, by names.
    needs = {
        module: {module_of(name) for name in imported(module)} & MODULES.keys() - {"dlbridge"}
        for module in MODULES.keys() - {"dlbridge"}
    }
    while free := {module for module, others in needs.items() if not others - {module}}:
        needs = {module: others - free for module, others in needs.items() if module not in free}
    assert not needs, needs


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(PUBLIC)])
def test_these_rooms_use_public_names_only(module: str) -> None:
    room = ".".join(module.split(".")[:2])
    for name in imported(module):
        private = any(part.startswith("_") for part in name.split(".")[1:])
        ours = name == room or name.startswith(f"{room}.")
        assert ours or not private or bool(ALLOWED & {name, module_of(name)}), name


def test_no_private_name_is_reached_by_way_of_the_package() -> None:
    for module, path in MODULES.items():
        if module.startswith(PUBLIC):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    private = node.attr.startswith("_") and not node.attr.startswith("__")
                    assert node.value.id != "dlbridge" or not private, (module, node.attr)


def test_every_row_is_found_by_its_names() -> None:
    for file in {*_registry._FILES.values()}:
        for row in importlib.import_module(f"dlbridge.libraries.{file}").ROWS:
            for name in (row.name, *row.modules):
                assert _registry._FILES[name] == file
    files = {path.stem for path in (PACKAGE / "libraries").glob("*.py")} - {"__init__"}
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
