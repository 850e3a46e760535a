"""Importing dlbridge, what it says, and what it does not say."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from dlb_support import run_child, run_python

import dlbridge

SURFACE = [
    "to_numpy",
    "to_torch",
    "to",
    "from_dlpack",
    "capsule",
    "explain",
    "Policy",
    "strict",
    "host",
    "zero_copy",
    "snapshot",
    "ManagedTensor",
    "ConversionRefused",
    "trace",
    "no_copies",
    "policy",
    "stats",
    "pool_limit",
    "release_pool",
    "borrow",
    "numpy_function",
    "torch_function",
    "gradcheck",
    "accepts",
    "as_namespace",
    "returns_like",
]


@pytest.mark.parametrize("name", SURFACE)
def test_the_surface_of_the_design_is_there(name: str) -> None:
    assert hasattr(dlbridge, name)
    assert name in dlbridge.__all__


@pytest.mark.parametrize(
    "name", ["to_numpy", "to_torch", "to", "from_dlpack", "capsule", "explain"]
)
def test_every_function_has_a_docstring_of_more_than_a_line(name: str) -> None:
    assert len((getattr(dlbridge, name).__doc__ or "").strip()) > 40


def test_the_look_up_of_a_public_name_can_be_specialised() -> None:
    # CPython from 3.11 on does not do so with any name of a module that has this.
    assert not hasattr(dlbridge, "__getattr__")


def test_importing_imports_numpy_and_nothing_else() -> None:
    out = run_python(
        "-c",
        """
import sys
before = set(sys.modules)
import dlbridge
new = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = new - set(sys.stdlib_module_names) - {"dlbridge", "numpy"}
assert "numpy" in new
assert not {name for name in foreign if not name.startswith("_dlbridge")}, foreign
slow = {"asyncio", "dataclasses", "html", "json", "multiprocessing", "socket", "threading"}
assert not slow & new, slow & new
import numpy as np
dlbridge.to_numpy(dlbridge.from_dlpack(np.ones(3)))
dlbridge.explain(np.ones(3), "numpy")
assert "torch" not in sys.modules and "jax" not in sys.modules
print("done")
""",
    )
    assert out == "done\n"


def test_torch_may_be_imported_before_or_after() -> None:
    for first, second in (("torch", "dlbridge"), ("dlbridge", "torch")):
        out = run_child(
            f"import {first}, {second}, numpy\nprint(dlbridge.to_numpy(torch.ones(3)).sum())"
        )
        assert out == "3.0\n"


@pytest.mark.parametrize(
    ("torch_of_the_path", "what_is_raised"),
    [
        ("None", "ModuleNotFoundError"),  # as if it were not installed
        ("types.ModuleType('torch')", "AttributeError"),  # a folder that a broken install left
    ],
)
def test_without_a_torch_its_absence_is_told_and_the_rest_works(
    torch_of_the_path: str, what_is_raised: str
) -> None:
    out = run_python(
        "-c",
        f"""
import sys, types
sys.modules["torch"] = {torch_of_the_path}
import dlbridge, numpy as np
doors = [dlbridge.to_torch, lambda x: dlbridge.to_torch([x]), lambda x: dlbridge.to(x, "torch")]
doors += [lambda x: dlbridge.explain(x, "torch")]
for door in doors * 2:
    try:
        door(np.ones(3))
    except {what_is_raised} as error:
        assert "torch" in str(error)
    else:
        raise AssertionError
assert dlbridge.to_numpy([np.ones(2)])[0].sum() == 2
print(dlbridge.to_numpy(dlbridge.from_dlpack(b"abc")))
""",
    )
    assert out == "[97 98 99]\n"


def test_what_importing_numpy_raised_is_raised() -> None:
    out = run_python(
        "-c",
        """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise OSError("the disk is gone")
sys.meta_path.insert(0, Broken())
try:
    import dlbridge
except OSError as error:
    print(error)
""",
    )
    assert out == "the disk is gone\n"


def test_without_its_compiled_part_the_package_says_so(tmp_path: Path) -> None:
    for file in Path(dlbridge.__file__).parent.glob("*.py"):
        (tmp_path / "dlbridge").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "dlbridge")
    out = run_python(
        "-c",
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
try:
    import dlbridge
except ModuleNotFoundError as error:
    print(error)
""",
    )
    assert f"no dlbridge._core that this Python can load lies in {tmp_path}" in out


def test_nothing_is_written_where_the_package_lies() -> None:
    # So that it may lie in a folder that only somebody else can write to.
    out = run_python(
        "-B",
        "-c",
        """
import os, sys
written = []
def watch(event, arguments):
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.truncate")
    if changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        written.append((event, *arguments))
sys.addaudithook(watch)
import dlbridge, numpy as np
dlbridge.to_torch([dlbridge.to_numpy(dlbridge.to_torch(np.ones(3)).requires_grad_())])
dlbridge.explain(np.ones(3), "torch")
with dlbridge.trace() as ledger:
    dlbridge.to_torch(np.ones(3))
str(ledger)
place = os.path.dirname(dlbridge.__file__)
print([each for each in written if str(each[1]).startswith(place)])
""",
    )
    assert out == "[]\n"


def test_everything_is_silent_when_warnings_are_errors() -> None:
    out = run_python("-W", "error", "-c", "import dlbridge; print(dlbridge.to_numpy(b'abc'))")
    assert out == "[97 98 99]\n"


def test_no_conversion_warns(road: str) -> None:
    read_only = np.arange(3.0)
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tensor in (torch.ones(3), torch.ones(3, requires_grad=True), torch.ones(3).bfloat16()):
            array = dlbridge.to_numpy(tensor)
            dlbridge.to_numpy(tensor, copy=True)
            np.asarray(array)
            dlbridge.to_numpy(dlbridge.from_dlpack(tensor))
        for _ in range(3):
            for array in (np.arange(3.0), read_only, np.arange(3.0)[::-1]):
                dlbridge.to_torch(array)
                dlbridge.explain(array, "torch")
        for bad in (torch.eye(2).to_sparse(), torch.ones(2, device="meta")):
            with pytest.raises(dlbridge.ConversionRefused):
                dlbridge.to_numpy(bad)


def test_nothing_is_printed(road: str, capfd: pytest.CaptureFixture[str]) -> None:
    from torch_sources import SOURCES

    for make in SOURCES.values():
        with make() as (tensor, _):
            capfd.readouterr()  # what torch itself said while the tensor was made
            dlbridge.explain(tensor, "numpy")
            with contextlib.suppress(dlbridge.ConversionRefused):
                dlbridge.to_numpy(tensor)
            assert capfd.readouterr() == ("", "")


def test_the_road_is_told_and_checked() -> None:
    assert dlbridge._core.torch_road() in ("linked", "portable")
    with pytest.raises(ValueError):
        dlbridge._core.torch_road("scenic")
