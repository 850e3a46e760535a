"""trace() and its Ledger: what crosses in a block, written down."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from threading import get_ident
from typing import Any

from dlbridge._plan import Plan
from dlbridge.ledger import output
from dlbridge.ledger.blocks import enter_block, leave_block, of_all_threads, of_context
from dlbridge.ledger.crossings import Crossing, Line, Totals, crossing_of, sums_of


class Ledger:
    """The crossings of a block. Made by ``dlbridge.trace()``; ``print`` shows it as a table."""

    def __init__(self, *, threads: bool = False) -> None:
        self._told: deque[tuple[Any, ...]] = deque()
        self._crossings: list[Crossing] = []
        self.threads = threads
        self._tokens: list[Any] = []

    # The block.

    def __enter__(self) -> Ledger:
        if self.threads:
            of_all_threads.append(self._record)
        else:
            self._tokens.append(of_context.set((*of_context.get(), self._record)))
        enter_block(ledgers=1)
        return self

    def __exit__(self, *error: object) -> None:
        leave_block(ledgers=1)
        if self.threads:
            of_all_threads.remove(self._record)
        else:
            of_context.reset(self._tokens.pop())

    def _record(
        self, plan: Plan, caller: tuple[str, int, str], began: int, nanoseconds: int | None
    ) -> None:
        self._told.append((plan, caller, began, nanoseconds, get_ident()))

    # What it holds.

    @property
    def crossings(self) -> list[Crossing]:
        """All until now. They are made here, so that the block itself is held up for less."""
        while self._told:
            self._crossings.append(crossing_of(*self._told.popleft()))
        return self._crossings

    def __iter__(self) -> Iterator[Crossing]:
        return iter(self.crossings)

    def __len__(self) -> int:
        return len(self.crossings)

    def __getitem__(self, index: int) -> Crossing:
        return self.crossings[index]

    @property
    def total(self) -> Totals:
        return Totals(len(self), *sums_of(self.crossings))

    @property
    def lines(self) -> list[Line]:
        """The crossings grouped by line of code and kind: the most bytes copied first."""
        groups: dict[tuple[object, ...], list[Crossing]] = {}
        for each in self.crossings:
            kind = (each.file, each.line, each.source, each.target, each.outcome, each.reasons)
            groups.setdefault(kind, []).append(each)
        lines = [Line(group[0], len(group), *sums_of(group)) for group in groups.values()]
        return sorted(
            lines, key=lambda line: (-line.bytes_copied, -line.bytes_viewed, -line.nanoseconds)
        )

    def to_records(self) -> list[dict[str, Any]]:
        """Each crossing as a dictionary of plain values."""
        return [each._asdict() | {"code": each.code} for each in self.crossings]

    # How it is shown.

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each crossing."""
        try:
            import pandas
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                "to_pandas() needs pandas, which is not installed; to_records() gives plain "
                "dictionaries"
            ) from missing
        return pandas.DataFrame(self.to_records(), columns=[*Crossing._fields, "code"])

    def to_json(self, path: Any = None) -> str:
        """Totals and crossings as JSON; also written to ``path`` where there is one."""
        whole = {"total": self.total._asdict(), "crossings": self.to_records()}
        return _written(json.dumps(whole, indent=1), path)

    def html(self, path: Any = None) -> str:
        """The table as a page of HTML that needs nothing else; also written to ``path``."""
        return _written(output.html_of(self), path)

    def to_chrome_trace(self, path: Any = None) -> str:
        """The crossings on a line of time, for Perfetto or chrome://tracing; also to ``path``."""
        return _written(output.chrome_trace_of(self), path)

    def __str__(self) -> str:
        return output.text_of(self)

    def __rich__(self) -> Any:
        return output.rich_of(self)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        total = self.total
        return (
            f"<dlbridge ledger: {total.views} views, {total.copies} copies of "
            f"{total.bytes_copied:,} bytes, {total.refusals} refused>"
        )


def _written(text: str, path: Any) -> str:
    """The text, which is also in the file then, if a path is given."""
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return text


Ledger.__module__ = "dlbridge"  # where it is public


def trace(*, threads: bool = False) -> Ledger:
    """``with trace() as log:`` records every crossing of the block.

    Those of this thread, or of the running asyncio task and what it starts; with ``threads=True``
    those of all threads.
    """
    return Ledger(threads=threads)
