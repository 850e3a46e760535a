"""The one exception of dlbridge's own, and a warning."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dlbridge._plan import Plan

_RAISED = "ConversionRefused: "  # what precedes the message in a traceback

# The object, in a fix.
_X = r"""(?<![\w."'])x(?![\w"'])"""

# An argument of a function that accepts() made, at the front of the place of a leaf of it.
_ARGUMENT = r"^x\['\*+\w+'\]\[(?:\d+|'\w+')\]"


class ConversionRefused(BufferError, ValueError):
    """A conversion that would have been wrong, unsafe, or against the policy.

    Nothing was handed over and nothing leaked. ``reasons`` says what was met and why it is
    refused, ``fix`` names the call that would work (None where nothing would), and ``plan`` is the
    whole decision, as ``explain`` gives it.

    A library's row may raise one, of a message alone: the message is then the reason, and the plan
    that of a source which could not be read.
    """

    plan: Plan
    reasons: tuple[str, ...]
    fix: str | None

    def __init__(
        self,
        message: str,
        plan: Plan | None = None,
        reasons: Iterable[str] | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        if plan is None and message.startswith("Caught ") and _RAISED in message:
            # torch raises a worker's refusal again with the text of its traceback, which ends so.
            said = message.rpartition(_RAISED)[2].partition("\n")[0]
            said, _, worked = said.partition("; use ")
            reasons, fix = (said,), worked or None
        if reasons is None:
            reasons = (message,) if plan is None else plan.reasons
        self.reasons = tuple(reasons)
        self.plan = plan or Plan.of_refusal(self.reasons, fix)
        self.fix = self.plan.fix if fix is None else fix

    def _move_to(self, place: str) -> None:
        """Names the place in its tree of the leaf ``x`` that was refused. Called by ``_core``."""
        if not self.fix:
            return
        place = re.sub(_ARGUMENT, "x", place)
        moved = re.sub(_X, lambda _: place, self.fix)
        moved = moved if moved != self.fix or place == "x" else f"{self.fix}, for {place}"
        self.args = (str(self).replace(f"; use {self.fix}", f"; use {moved}"),)
        self.fix = moved
        self.plan = self.plan._replace(fix=moved)


class NotDifferentiable(UserWarning):
    """A function without a gradient was called in a graph: its outputs do not require grad."""


def refused(what: str, reason: str, fix: str | None = None) -> ConversionRefused:
    """The refusal of something that no Plan could know."""
    text = f"{what} ({reason})" + (f"; use {fix}" if fix else "")
    return ConversionRefused(text, None, (reason,), fix)
