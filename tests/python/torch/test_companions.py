"""Which companion a torch gets, and that any trouble with it means the portable road."""

from __future__ import annotations

import ctypes
from pathlib import Path

import dlb_support
import pytest
import torch

import dlbridge
from dlbridge import _core, _torch

CROSSES = """
import sys
import torch
{first}
import dlbridge
assert dlbridge.stats().torch_road == ""
assert dlbridge.to_numpy(torch.ones(2).neg()).tolist() == [-1, -1]
print(dlbridge.stats().torch_road)
"""
UNLOADABLE = """
class Unloadable:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("dlbridge._torch_"):
            raise ImportError("undefined symbol: of_another_build")
sys.meta_path.insert(0, Unloadable())
"""
MISREADING = """
import dlbridge._core
dlbridge._core.companion_agrees = lambda companion, tensors: False
"""
RELEASE = torch.__version__.partition("+")[0]


@pytest.fixture(autouse=True)
def companion() -> None:
    """A build without one has nothing to try; one that is there has to be loaded."""
    name = "_torch_" + RELEASE.replace(".", "_") + "_abi*"
    if not list(Path(_core.__file__).parent.glob(name)):
        pytest.skip("there is no companion for this torch")
    assert _torch.load_companion() is not None, _torch.without_companion


@pytest.mark.parametrize(
    ("first", "road"),
    [
        ("", "linked"),
        (f"torch.__version__ = '{RELEASE}+of_some_other_build'", "linked"),
        ("torch.__version__ = '9.8.7'", "portable: there is no companion for torch 9.8.7"),
        (
            "torch.compiled_with_cxx11_abi = lambda: not torch._C._GLIBCXX_USE_CXX11_ABI",
            f"portable: there is no companion for torch {RELEASE}",
        ),
        (
            UNLOADABLE,
            f"portable: the companion for torch {RELEASE} cannot be loaded: undefined symbol: "
            "of_another_build",
        ),
        (
            MISREADING,
            f"portable: the companion for torch {RELEASE} misreads tensors of this build",
        ),
    ],
)
def test_a_torch_takes_the_road_that_fits_it(first: str, road: str) -> None:
    assert dlb_support.run_python("-c", CROSSES.format(first=first)) == f"{road}\n"


def test_of_two_torches_in_the_path_the_one_that_was_imported_counts(tmp_path: Path) -> None:
    for part in ("torch", "torch-2.4.0.dist-info"):
        (tmp_path / part).mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('the wrong torch')")
    (tmp_path / "torch-2.4.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.4.0\n")
    first = f"sys.path.insert(0, {str(tmp_path)!r})"
    assert dlb_support.run_python("-c", CROSSES.format(first=first)) == "linked\n"


def test_a_companion_agrees_with_torchs_own_python() -> None:
    companion = _torch.load_companion()
    tensors = (torch.arange(6).reshape(2, 3).T, torch.ones(2, requires_grad=True))
    assert _core.companion_agrees(companion, tensors)
    assert _core.companion_agrees(companion, (torch.ones(3, dtype=torch.complex64).conj(),))


def test_a_companion_of_another_build_of_dlbridge_does_not_agree() -> None:
    class Old(ctypes.Structure):
        _fields_ = [("interface", ctypes.c_int), ("open", ctypes.c_void_p)]

    old = Old(0, None)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new(ctypes.addressof(old), b"dlbridge.torch_companion", None)
    assert not _core.companion_agrees(capsule, ())


def test_what_is_no_companion_is_an_error() -> None:
    capsule = dlbridge.capsule(b"1")
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        _core.companion_agrees(capsule, ())
    with pytest.raises(TypeError):
        _core.companion_agrees(capsule, [])
