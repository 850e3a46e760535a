"""The page of the manual with every refusal, as it is raised: docs/messages.md.

    PYTHONPATH=build/python python docs/measure/messages.py > docs/messages.md

The sources are those of the tests of policies and fixes.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "python" / "support"))

import numpy_sources
import torch_sources

import dlbridge

HEAD = """# Every refusal

What `to_numpy` and `to_torch` refuse, in their own words, and what the four presets make of the
same source. A message names what was met, why it is refused, and after "use" the call that would
work; what that call loses it says in parentheses. Of dtypes that are told of in the same words one
stands for all. Made by `docs/measure/messages.py`, with torch {torch} and NumPy {numpy}.
"""
PRESETS = ("strict", "host", "zero_copy", "snapshot")


def sources() -> Iterator[Callable[[], AbstractContextManager[Any]]]:
    for make in torch_sources.SOURCES.values():
        yield _first_of(make)
    folder = Path(tempfile.mkdtemp())
    for array in numpy_sources.SOURCES.values():
        yield _of_array(array, folder)


def _first_of(make: Callable[[], AbstractContextManager[Any]]) -> Any:
    @contextmanager
    def opened() -> Iterator[Any]:
        with make() as (x, _):
            yield x

    return opened


def _of_array(array: Callable[[Path], Any], folder: Path) -> Any:
    @contextmanager
    def opened() -> Iterator[Any]:
        yield array(folder)

    return opened


def in_a_word(plan: dlbridge.Plan) -> str:
    if plan.refused:
        return "refused"
    access = "" if plan.writable else "read-only "
    return f"{access}{'view' if plan.view else 'copy'}"


def rows(target: str) -> dict[str, tuple[str, ...]]:
    """By message: what each preset makes of the source that it is about."""
    found: dict[str, tuple[str, ...]] = {}
    told: set[tuple[str, tuple[str, ...]]] = set()
    for make in sources():
        with make() as x:
            plans = [dlbridge.explain(x, target, policy=preset) for preset in PRESETS]
            refused = next((i for i, plan in enumerate(plans) if plan.refused), None)
            if refused is None:
                continue
            try:
                dlbridge.to(x, target, policy=PRESETS[refused])
            except dlbridge.ConversionRefused as error:
                outcomes = tuple(map(in_a_word, plans))
                words = re.sub(r"of dtype \S+", "", str(error)), outcomes
                if words not in told:
                    told.add(words)
                    found[str(error)] = outcomes
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    import numpy as np
    import torch

    print(HEAD.format(torch=torch.__version__.partition("+")[0], numpy=np.__version__))
    for target in ("numpy", "torch"):
        print(f"## `to_{target}`\n\n| message | {' | '.join(PRESETS)} |\n|---|---|---|---|---|")
        for message, outcomes in sorted(rows(target).items()):
            print(f"| `{message}` | {' | '.join(outcomes)} |")
        print()


if __name__ == "__main__":
    main()
