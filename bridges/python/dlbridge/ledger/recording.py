"""trace() and its Ledger: what crosses in a block, written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dlbridge.ledger.blocks import (
    Holding,
    Told,
    enter_block,
    leave_block,
    of_all_threads,
    of_context,
)

if TYPE_CHECKING:
    from dlbridge.ledger.crossings import Crossing, Line, Totals


class Ledger:
    """The crossings of a block. Made by ``dlbridge.trace()``; ``print`` shows it as a table."""

    def __init__(self, *, threads: bool = False) -> None:
        self._told: deque[Told] = deque()
        self._crossings: list[Crossing] = []
        self.threads = threads
        self._recording = Holding(of_context, self._told.append)

    # The block.

    def __enter__(self) -> Ledger:
        if self.threads:
            of_all_threads.append(self._told.append)
        else:
            self._recording.begin()
        enter_block(ledgers=1)
        return self

    def __exit__(self, *error: object) -> None:
        if self.threads:
            of_all_threads.remove(self._told.append)
        else:
            self._recording.end()
        leave_block(ledgers=1)

    # What it holds.

    @property
    def crossings(self) -> list[Crossing]:
        """All until now. They are made here, so that the block itself is held up for less."""
        from dlbridge.ledger.crossings import crossing_of

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
        from dlbridge.ledger.crossings import total_of

        return total_of(self.crossings)

    @property
    def lines(self) -> list[Line]:
        """The crossings grouped by line of code and kind: the most bytes copied first."""
        from dlbridge.ledger.crossings import lines_of

        return lines_of(self.crossings)

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
        from dlbridge.ledger.crossings import Crossing

        return pandas.DataFrame(self.to_records(), columns=[*Crossing._fields, "code"])

    def to_json(self, path: Any = None) -> str:
        """Totals and crossings as JSON; also written to ``path`` where there is one."""
        import json

        whole = {"total": self.total._asdict(), "crossings": self.to_records()}
        return _written(json.dumps(whole, indent=1), path)

    def html(self, path: Any = None) -> str:
        """The table as a page of HTML that needs nothing else; also written to ``path``."""
        return _written(_output().html_of(self.crossings), path)

    def to_chrome_trace(self, path: Any = None) -> str:
        """The crossings on a line of time, for Perfetto or chrome://tracing; also to ``path``."""
        return _written(_output().chrome_trace_of(self.crossings), path)

    def __str__(self) -> str:
        text: str = _output().text_of(self.crossings)
        return text

    def __rich__(self) -> Any:
        return _output().rich_of(self.crossings)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        total = self.total
        return (
            f"<dlbridge ledger: {total.views} views, {total.copies} copies of "
            f"{total.bytes_copied:,} bytes, {total.refusals} refused>"
        )


def _output() -> Any:
    """How it is shown: imported for that."""
    from dlbridge.ledger import output

    return output


def _written(text: str, path: Any) -> str:
    """The text, which is also in the file then, if a path is given."""
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return text


def trace(*, threads: bool = False) -> Ledger:
    """``with trace() as log:`` records every crossing of the block.

    Those of this thread, or of the running asyncio task and what it starts; with ``threads=True``
    those of all threads.
    """
    return Ledger(threads=threads)
