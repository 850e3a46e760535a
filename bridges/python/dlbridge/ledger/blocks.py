"""The blocks that are open, and what _core asks of them."""

import sys
from _thread import get_ident  # importing threading takes longer
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, TypeVar

from dlbridge import _core
from dlbridge._errors import ConversionRefused
from dlbridge._plan import Plan
from dlbridge._policy import PRESETS, Policy

if TYPE_CHECKING:
    from dlbridge.ledger.counts import Stats

# A crossing as a ledger is told it: its Plan, whose line it is (file, line, function), when it
# began, how long it took, in nanoseconds, and on which thread.
Told: TypeAlias = "tuple[Plan, str, int, str, int, int | None, int]"
Record: TypeAlias = Callable[[Told], None]
of_all_threads: list[Record] = []
Given = TypeVar("Given")  # by a block, to the name after "as"
# What the blocks of a thread, or task, hold, each in a list of its own: the innermost last. Of a
# block that has ended the list is empty: generators may end theirs in any order, and in another
# thread or task.
Held: TypeAlias = "tuple[list[Any], ...]"
of_context: ContextVar[Held] = ContextVar("dlbridge ledgers", default=())
copies_forbidden: ContextVar[Held] = ContextVar("dlbridge copies forbidden", default=())
policy_of_context: ContextVar[Held] = ContextVar("dlbridge policy", default=())

# Generators, coroutines and asynchronous generators, by inspect's CO_ flags.
_RESUMED = 0x2A0

# One item for each block that is open, in all threads: what torch compiles is guarded by it.
open_blocks: list[None] = []


def enter_block(ledgers: int = 0) -> None:
    """From here on _core asks the variables above, and what is compiled leaves crossings to it.

    ``ledgers`` is 1 where each crossing is to be told.
    """
    _core.count_blocks(1, ledgers)
    open_blocks.append(None)


def leave_block(ledgers: int = 0) -> None:
    open_blocks.pop()
    _core.count_blocks(-1, -ledgers)


_Entry: TypeAlias = (
    "tuple[int, int, list[Any]]"  # frame and thread that opened it, and what it holds
)


class Holding:
    """Gives a variable its value between ``begin()`` and ``end()``, which may be nested, and called
    in several threads or tasks at once."""

    def __init__(self, variable: ContextVar[Held], value: object) -> None:
        self._variable = variable
        self._value = value
        self._held: list[_Entry] = []

    def begin(self) -> None:
        held = [self._value]
        # No generator expression: torch's compiler may end there.
        self._variable.set((*[other for other in self._variable.get() if other], held))
        self._held.append((id(_frame_of_block()), get_ident(), held))

    def end(self) -> None:
        held = [*self._held]  # others may take theirs out meanwhile
        if len(held) == 1 and held[0][1] == get_ident():
            ended = held[0]
        else:
            ended = self._one_to_end(held, _frame_of_block())
        ended[2].clear()
        self._held.remove(ended)

    def _one_to_end(self, held: list[_Entry], frame: Any) -> _Entry:
        resumed = frame and frame.f_code.co_flags & _RESUMED  # perhaps by another thread
        here, thread = [*map(id, self._variable.get())], get_ident()
        held = [
            entry
            for entry in held
            if entry[1] == thread or id(entry[2]) in here or (resumed and entry[0] == id(frame))
        ]
        if not held:
            raise RuntimeError(
                "this block is not open in this thread, which cannot end what another thread has "
                "opened; use a block of its own here"
            )
        # It may be left in another frame than it was entered in: the thread or task tells.
        held = [entry for entry in held if entry[0] == id(frame)] or held
        return ([entry for entry in held if id(entry[2]) in here] or held)[-1]


def _frame_of_block() -> Any:
    """Who enters or leaves the block: a generator may do so in another thread, or task. None where
    a program in C does, with no Python below it."""
    frame = sys._getframe(2).f_back
    while frame and frame.f_globals.get("__name__") == "contextlib":  # a stack does it for another
        frame = frame.f_back
    return frame


class Block(ContextDecorator, Holding, Generic[Given]):
    """What ``no_copies()`` and ``policy()`` give: for ``with``, or to decorate a function."""

    def __init__(self, variable: ContextVar[Held], value: object, given: Given) -> None:
        super().__init__(variable, value)
        self._given = given

    def __call__(self, function: Any) -> Any:
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _RESUMED:
            raise TypeError(
                f"cannot open a block for {function.__name__}(), which is asynchronous or a "
                "generator (what it does would come after the block); use the block inside it, "
                "by with"
            )
        return super().__call__(function)

    def __enter__(self) -> Given:
        enter_block()  # first: here torch's compiler leaves the block to Python, before it is open
        self.begin()
        return self._given

    def __exit__(self, *error: object) -> None:
        self.end()
        leave_block()


def no_copies() -> Block[None]:
    """A block in which the first crossing that would copy raises ``ConversionRefused`` instead.

    It names the line and the reason; nothing is copied. Holds for this thread, or asyncio task.
    """
    return Block(copies_forbidden, True, None)


def _named(policy: Policy | str) -> Policy:
    chosen = PRESETS.get(policy) if isinstance(policy, str) else policy
    if not isinstance(chosen, Policy):
        if not isinstance(policy, str):
            raise TypeError(
                "policy must be a dlbridge.Policy or the name of a preset, not "
                f"{type(policy).__name__}"
            )
        names = ", ".join(repr(name) for name in PRESETS)
        raise ValueError(f"policy={policy!r} is no preset; use one of {names}, or a Policy")
    return chosen


def policy_in_force(policy: Policy | str | None) -> Policy:
    """The policy that a call with this argument follows."""
    if policy is not None:
        return _named(policy)
    held: Policy | None = _core.policy_of_block()  # as a crossing here would ask
    return PRESETS["host"] if held is None else held


def policy(default: Policy | str) -> Block[Policy]:
    """A block in which calls without a policy of their own follow ``default``.

    A preset's name or a Policy. Holds for this thread, or asyncio task; blocks may be nested.
    """
    chosen = _named(default)
    return Block(policy_of_context, chosen, chosen)


def stats() -> "Stats":
    """The counts since start. They are always kept."""
    return _core.stats(_torch_road())


def _torch_road() -> str:
    torch = sys.modules.get("dlbridge._torch")
    if torch is None:
        return ""
    road = _core.torch_road()
    return f"{road}: {torch.without_companion}" if torch.without_companion else road


# Whose line a crossing is: the innermost frame's outside of dlbridge and what it bridges.
caller = _core.caller


def forbid(plan: Plan) -> NoReturn:
    """Raises what ends a crossing that would copy. Called by _core."""
    file, line, function = caller()
    plan = plan._replace(refused=True)
    _core.refused(plan)
    because = "; ".join(plan.reasons)
    raise ConversionRefused(
        f"{file}:{line} (in {function}) would copy {plan.bytes_copied:,} bytes in a "
        f"no_copies() block: {plan.source} -> {plan.result} ({because}); copy before the "
        "block, or take the line out of it",
        plan,
        fix="the same call before the block, or outside of it",
    )
