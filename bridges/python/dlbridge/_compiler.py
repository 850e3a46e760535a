"""When torch's compiler is imported it learns of to_numpy() and to_torch().

Not before: importing the compiler takes seconds, and most programs never do. It may come before
dlbridge or after, and a function that it compiles may be the first that meets dlbridge.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_COMPILER = "torch._dynamo"


def _teach() -> None:
    if "reason" in (importlib.import_module("torch.compiler").disable.__kwdefaults__ or ()):
        importlib.import_module("dlbridge._torch.compiled")
    else:  # it is too old to be taught; a graph ends, and what runs then is not to be compiled
        importlib.import_module("torch._dynamo.trace_rules").add(__package__)


class _Watch:
    """A finder that waits for the compiler; what finds it is Python's own."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _COMPILER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_teach(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(cls)  # not before: who asks for a spec need not import it
                _teach()

            spec.loader.exec_module = execute_and_teach  # type: ignore[method-assign]
        return spec


def watch() -> None:
    """Teaches the compiler, at once where it is there already."""
    if _COMPILER in sys.modules:
        _teach()
    elif _Watch not in sys.meta_path:  # where the package is run again
        sys.meta_path.insert(0, _Watch)
