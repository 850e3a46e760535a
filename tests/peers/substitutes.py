"""Runs the installed tests of other projects with parts of NumPy replaced by dlbridge."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

import dlbridge


class Exported(np.ndarray):
    """An array that leaves through a ManagedTensor: its DLPack methods are ours."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return dlbridge.from_dlpack(self).__dlpack__(**keywords)

    def __dlpack_device__(self) -> Any:
        return dlbridge.from_dlpack(self).__dlpack_device__()


class OnlyDLPack:
    """An object of which nothing is known but its two DLPack methods."""

    def __init__(self, x: Any) -> None:
        self.__dlpack__ = x.__dlpack__
        self.__dlpack_device__ = x.__dlpack_device__


def taken(x: Any, *, device: Any = None, copy: bool | None = None) -> np.ndarray:
    """``np.from_dlpack`` by our means."""
    if device is not None:
        x = dlbridge.from_dlpack(x, device=device, copy=copy)
        copy = None
    return dlbridge.to_numpy(x, copy=copy)


def taken_by_door(x: Any, **keywords: Any) -> np.ndarray:
    """The same, of an object whose DLPack methods are all that there is to read it by."""
    return taken(OnlyDLPack(x), **keywords)


def exported(make: Any) -> Any:
    """The function of NumPy's with a result that leaves through us."""
    return lambda *args, **keywords: make(*args, **keywords).view(Exported)


CONSUMER = {"from_dlpack": taken}
DOOR = {"from_dlpack": taken_by_door}
PRODUCER = {
    name: exported(getattr(np, name)) for name in ("arange", "array", "asarray", "ones", "zeros")
} | {"ndarray": Exported}


class NumPyBut(ModuleType):
    """NumPy with some of its names replaced."""

    def __init__(self, replaced: dict[str, Any]) -> None:
        super().__init__("numpy")
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def peer_tests(module: str, replaced: dict[str, Any]) -> dict[str, Any]:
    """The tests of an installed module, made anew with another NumPy in its place."""
    importlib.import_module(module)  # so that nothing else is imported while the name is taken
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["numpy"] = NumPyBut(replaced)
    try:
        spec.loader.exec_module(made)
    finally:
        sys.modules["numpy"] = np
    wanted = ("test_", "Test", "pytestmark")
    return {name: each for name, each in vars(made).items() if name.startswith(wanted)}
