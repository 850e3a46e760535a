"""Holds what the peers' own tests find against docs/peers.md, which lists what does not apply."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dlbridge

LIST = Path(__file__).parents[2] / "docs" / "peers.md"
ROW = re.compile(r"^\| `(test_\w+\.py::\S+)` \| (\w+) \| (.*?) \|$", re.MULTILINE)
ERRORS: dict[str, type[BaseException]] = {
    "AssertionError": AssertionError,
    "ConversionRefused": dlbridge.ConversionRefused,
    "Failed": pytest.fail.Exception,  # an error that they wait for did not come
}


def exceptions() -> dict[str, tuple[type[BaseException], str]]:
    """By the test's id: what the peer's test ends with when it is run against us, and why."""
    text = LIST.read_text(encoding="utf-8")
    return {row[1]: (ERRORS[row[2]], row[3]) for row in ROW.finditer(text)}


def pytest_configure(config: pytest.Config) -> None:
    # How they are written is their own affair.
    config.addinivalue_line("filterwarnings", "default")
    config.addinivalue_line("markers", "numpy: a mark of pyarrow's tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A listed test has to fail, as the list says; one that passes is an error, and so is a row for
    a test that is not there (any more)."""
    files = {item.path.name for item in items}
    ids = {f"{item.path.name}::{item.nodeid.split('::', 1)[1]}": item for item in items}
    for name, (error, reason) in exceptions().items():
        if name.split("::")[0] not in files:
            continue
        if name not in ids:
            raise pytest.UsageError(f"docs/peers.md lists {name}, which is no test")
        ids[name].add_marker(pytest.mark.xfail(raises=error, reason=reason, strict=True))
