"""Engines of others that carry between processes, given our blocks: opt-in, imported late."""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name not in ("dask", "loader", "ray"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
