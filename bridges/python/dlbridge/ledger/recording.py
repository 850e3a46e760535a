"""trace() and its Ledger: what crosses in a block, written down."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from dlbridge._plan import Plan
from dlbridge.ledger import output
from dlbridge.ledger.blocks import enter_block, leave_block, of_all_threads, of_context
from dlbridge.ledger.crossings import Crossing, Crossings, crossing_of


class Ledger(Crossings):
    """The crossings of a block. Made by ``dlbridge.trace()``; ``print`` shows it as a table."""

    def __init__(self, *, threads: bool = False) -> None:
        super().__init__()
        self.threads = threads
        self._tokens: list[Any] = []

    # The block.

    def __enter__(self) -> Ledger:
        if self.threads:
            of_all_threads.append(self._record)
        else:
            self._tokens.append(of_context.set((*of_context.get(), self._record)))
        enter_block()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave_block()
        if self.threads:
            of_all_threads.remove(self._record)
        else:
            of_context.reset(self._tokens.pop())

    def _record(
        self, plan: Plan, caller: tuple[str, int, str], began: int, nanoseconds: int | None
    ) -> None:
        self.crossings.append(crossing_of(plan, caller, began, nanoseconds))

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
        return output.written(output.json_of(self), path)

    def html(self, path: Any = None) -> str:
        """The table as a page of HTML that needs nothing else; also written to ``path``."""
        return output.written(output.html_of(self), path)

    def to_chrome_trace(self, path: Any = None) -> str:
        """The crossings on a line of time, for Perfetto or chrome://tracing; also to ``path``."""
        return output.written(output.chrome_trace_of(self), path)

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


Ledger.__module__ = "dlbridge"  # where it is public


def trace(*, threads: bool = False) -> Ledger:
    """``with trace() as log:`` records every crossing of the block.

    Those of this thread, or of the running asyncio task and what it starts; with ``threads=True``
    those of all threads.
    """
    return Ledger(threads=threads)
