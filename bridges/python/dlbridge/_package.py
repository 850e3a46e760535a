"""Where the C++ side of an installed dlbridge lies: for the builds of extensions."""

from __future__ import annotations

import os
import sys


def get_include() -> str:
    """The folder to compile an extension with: the headers of dlbridge, and DLPack's own."""
    return _folder("include")


def cmake_dir() -> str:
    """What CMake has to know as ``dlbridge_DIR`` for ``find_package(dlbridge CONFIG)``."""
    return _folder("lib/cmake/dlbridge")


def _folder(name: str) -> str:
    # An editable install has two places: the sources, and what was built.
    for place in sys.modules["dlbridge"].__path__:
        folder = os.path.abspath(os.path.join(place, name))
        if os.path.isdir(folder):
            return folder
    raise FileNotFoundError(
        "this dlbridge is not installed, and has no headers beside it: pip install it, or use "
        "`cmake --install` and its prefix"
    )
