"""The one exception of dlbridge's own."""

from __future__ import annotations

from collections.abc import Iterable

from dlbridge._plan import Plan


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
        if reasons is None:
            reasons = (message,) if plan is None else plan.reasons
        self.reasons = tuple(reasons)
        self.plan = plan or Plan.of_refusal(self.reasons, fix)
        self.fix = self.plan.fix if fix is None else fix

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.plan, self.reasons, self.fix)


def refused(what: str, reason: str, fix: str | None = None) -> ConversionRefused:
    """The refusal of something that no Plan could know."""
    text = f"{what} ({reason})" + (f"; use {fix}" if fix else "")
    return ConversionRefused(text, None, (reason,), fix)
