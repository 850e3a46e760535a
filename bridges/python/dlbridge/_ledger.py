"""What crosses: the ledger of a block, the counts since start, and blocks that set or forbid."""

from __future__ import annotations

import linecache
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

from dlbridge import _core
from dlbridge._errors import ConversionRefused
from dlbridge._plan import Plan
from dlbridge._policy import PRESETS, Policy

# A crossing belongs to the line of the innermost frame outside these: the user's own.
_LIBRARIES = frozenset({"dlbridge", "torch", "numpy", "jax", "jaxlib", "contextlib", "functools"})


class Crossing(NamedTuple):
    """One crossing: who asked for it, what crossed, how, why, and how long it took.

    ``outcome`` is ``"view"``, ``"copy"`` or ``"refused"``. ``nbytes`` is the size of what crossed,
    ``bytes_copied`` what of it was copied. ``began`` and ``nanoseconds`` are a monotonic clock's;
    ``nanoseconds`` is None where nothing timed the crossing.
    """

    file: str
    line: int
    function: str
    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str
    result_dtype: str
    device: str
    outcome: str
    writable: bool
    nbytes: int
    bytes_copied: int
    steps: tuple[str, ...]
    reasons: tuple[str, ...]
    thread: int
    began: int
    nanoseconds: int | None

    @property
    def code(self) -> str:
        """The line's own text, where it can still be read."""
        return linecache.getline(self.file, self.line).strip()


class Line(NamedTuple):
    """All crossings of one kind that one line of code made."""

    first: Crossing
    times: int
    views: int
    copies: int
    refusals: int
    bytes_viewed: int
    bytes_copied: int
    nanoseconds: int


class Totals(NamedTuple):
    crossings: int
    views: int
    copies: int
    refusals: int
    bytes_viewed: int
    bytes_copied: int
    nanoseconds: int


class Ledger:
    """The crossings of a block. Made by ``dlbridge.trace()``; ``print`` shows it as a table."""

    def __init__(self, *, threads: bool = False) -> None:
        self.crossings: list[Crossing] = []
        self.threads = threads
        self._tokens: list[Any] = []

    # The block.

    def __enter__(self) -> Ledger:
        if self.threads:
            _of_all_threads.append(self)
        else:
            self._tokens.append(_of_context.set((*_of_context.get(), self)))
        _core.count_blocks(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _core.count_blocks(-1)
        if self.threads:
            _of_all_threads.remove(self)
        else:
            _of_context.reset(self._tokens.pop())

    # What it holds.

    def __iter__(self) -> Iterator[Crossing]:
        return iter(self.crossings)

    def __len__(self) -> int:
        return len(self.crossings)

    def __getitem__(self, index: int) -> Crossing:
        return self.crossings[index]

    @property
    def total(self) -> Totals:
        return Totals(len(self), *_sums(self.crossings))

    @property
    def lines(self) -> list[Line]:
        """The crossings grouped by line of code and kind: the most bytes copied first."""
        groups: dict[tuple[object, ...], list[Crossing]] = {}
        for each in self.crossings:
            kind = (each.file, each.line, each.source, each.target, each.outcome, each.reasons)
            groups.setdefault(kind, []).append(each)
        lines = [Line(group[0], len(group), *_sums(group)) for group in groups.values()]
        return sorted(
            lines, key=lambda line: (-line.bytes_copied, -line.bytes_viewed, -line.nanoseconds)
        )

    def to_records(self) -> list[dict[str, Any]]:
        """Each crossing as a dictionary of plain values."""
        return [each._asdict() | {"code": each.code} for each in self.crossings]

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
        from dlbridge import _ledger_output

        return _ledger_output.written(_ledger_output.json_of(self), path)

    def html(self, path: Any = None) -> str:
        """The table as a page of HTML that needs nothing else; also written to ``path``."""
        from dlbridge import _ledger_output

        return _ledger_output.written(_ledger_output.html_of(self), path)

    def to_chrome_trace(self, path: Any = None) -> str:
        """The crossings on a line of time, for Perfetto or chrome://tracing; also to ``path``."""
        from dlbridge import _ledger_output

        return _ledger_output.written(_ledger_output.chrome_trace_of(self), path)

    def __str__(self) -> str:
        from dlbridge import _ledger_output

        return _ledger_output.text_of(self)

    def __rich__(self) -> Any:
        from dlbridge import _ledger_output

        return _ledger_output.rich_of(self)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        total = self.total
        return (
            f"<dlbridge ledger: {total.views} views, {total.copies} copies of "
            f"{total.bytes_copied:,} bytes, {total.refusals} refused>"
        )


def _sums(crossings: list[Crossing]) -> tuple[int, int, int, int, int, int]:
    def count(outcome: str) -> int:
        return sum(each.outcome == outcome for each in crossings)

    viewed = sum(each.nbytes for each in crossings if each.outcome == "view")
    copied = sum(each.bytes_copied for each in crossings)
    spent = sum(each.nanoseconds or 0 for each in crossings)
    return count("view"), count("copy"), count("refused"), viewed, copied, spent


# The open blocks.

_of_all_threads: list[Ledger] = []
_of_context: ContextVar[tuple[Ledger, ...]] = ContextVar("dlbridge ledgers", default=())
_copies_forbidden: ContextVar[bool] = ContextVar("dlbridge copies forbidden", default=False)
_policy: ContextVar[Policy | None] = ContextVar("dlbridge policy", default=None)


def trace(*, threads: bool = False) -> Ledger:
    """``with trace() as log:`` records every crossing of the block.

    Those of this thread, or of the running asyncio task and what it starts; with ``threads=True``
    those of all threads.
    """
    return Ledger(threads=threads)


@contextmanager
def no_copies() -> Iterator[None]:
    """A block in which the first crossing that would copy raises ``ConversionRefused`` instead.

    It names the line and the reason; nothing is copied. Holds for this thread, or asyncio task.
    """
    _core.count_blocks(1)
    try:
        token = _copies_forbidden.set(True)
        try:
            yield
        finally:
            _copies_forbidden.reset(token)
    finally:
        _core.count_blocks(-1)


@contextmanager
def policy(default: Policy | str) -> Iterator[Policy]:
    """A block in which calls without a policy of their own follow ``default``.

    A preset's name or a Policy. Holds for this thread, or asyncio task; blocks may be nested.
    """
    chosen = PRESETS.get(default) if isinstance(default, str) else default
    if not isinstance(chosen, Policy):
        if not isinstance(default, str):
            raise TypeError(
                "policy must be a dlbridge.Policy or the name of a preset, not "
                f"{type(default).__name__}"
            )
        names = ", ".join(repr(name) for name in PRESETS)
        raise ValueError(f"policy={default!r} is no preset; use one of {names}, or a Policy")
    _core.count_blocks(1)
    try:
        token = _policy.set(chosen)
        try:
            yield chosen
        finally:
            _policy.reset(token)
    finally:
        _core.count_blocks(-1)


class Tally(NamedTuple):
    views: int
    copies: int
    bytes_copied: int


class Stats(NamedTuple):
    """What crossed since dlbridge was imported, in all threads."""

    crossings: int
    views: int
    copies: int
    refusals: int
    bytes_copied: int
    by_target: dict[str, Tally]


def stats() -> Stats:
    """The counts since start. They are always kept."""
    rows, refusals = _core.tallies()
    by_target = {name: Tally(*row) for name, row in rows.items()}
    views, copies, copied = (sum(each) for each in zip(*by_target.values(), strict=True))
    return Stats(views + copies, views, copies, refusals, copied, by_target)


# Called by _core while a block is open.


class _Entry:
    """A crossing on its way: it is written down when it has succeeded."""

    __slots__ = ("caller", "ledgers", "plan")

    def __init__(self, plan: Plan, ledgers: tuple[Ledger, ...]) -> None:
        self.plan = plan
        self.ledgers = ledgers
        self.caller = caller()

    def finish(self, began: int, nanoseconds: int | None) -> None:
        crossing = _crossing(self.plan, self.caller, began, nanoseconds)
        for ledger in self.ledgers:
            ledger.crossings.append(crossing)


def decided(plan: Plan) -> _Entry | None:
    """Of a crossing that is about to happen: forbids it, or gives what to tell when it has."""
    if _copies_forbidden.get() and not plan.view:
        file, line, function = caller()
        was_refused(plan._replace(refused=True))
        because = "; ".join(plan.reasons)
        raise ConversionRefused(
            f"{file}:{line} (in {function}) would copy {plan.bytes_copied:,} bytes in a "
            f"no_copies() block: {plan.source} -> {plan.result} ({because}); copy before the "
            "block, or take the line out of it",
            plan,
            plan.reasons,
            "the same call before the block, or outside of it",
        )
    ledgers = (*_of_context.get(), *_of_all_threads)
    return _Entry(plan, ledgers) if ledgers else None


def was_refused(plan: Plan) -> None:
    write_down(plan, time.perf_counter_ns(), None)


def write_down(plan: Plan, began: int, nanoseconds: int | None) -> None:
    """A crossing that the package's own Python carried out."""
    ledgers = (*_of_context.get(), *_of_all_threads)
    if ledgers:
        _Entry(plan, ledgers).finish(began, nanoseconds)


def default_policy() -> Policy | None:
    return _policy.get()


def caller() -> tuple[str, int, str]:
    """File, line and function of the innermost frame that is the user's."""
    frame = innermost = sys._getframe(1)
    while True:
        name = str(frame.f_globals.get("__name__", ""))
        package = name.partition(".")[0]
        if package not in _LIBRARIES:
            break
        if package != "dlbridge" and innermost.f_globals.get("__package__") == "dlbridge":
            innermost = frame
        if frame.f_back is None:  # a thread of a library's own
            frame = innermost
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def _bits(dtype: str) -> int:
    try:
        _, bits, lanes = _core.dtype_triple(dtype)
    except ValueError:
        return 0
    return bits * lanes


def _crossing(
    plan: Plan, caller: tuple[str, int, str], began: int, nanoseconds: int | None
) -> Crossing:
    shape = plan.shape or ()
    elements = math.prod(shape) if plan.shape is not None else 0
    return Crossing(
        *caller,
        source=plan.source,
        target=plan.result,
        shape=shape,
        dtype=plan.dtype,
        result_dtype=plan.result_dtype,
        device=plan.device,
        outcome="refused" if plan.refused else "view" if plan.view else "copy",
        writable=plan.writable,
        nbytes=(elements * _bits(plan.dtype) + 7) // 8,
        bytes_copied=0 if plan.refused else plan.bytes_copied,
        steps=plan.steps,
        reasons=plan.reasons,
        thread=threading.get_ident(),
        began=began,
        nanoseconds=nanoseconds,
    )
