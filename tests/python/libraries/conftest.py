"""These libraries keep tensors of ours and theirs for a while (dpnp what its queue may still read).

Deleters and managed tensors are counted here as everywhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.keeps_sources)
