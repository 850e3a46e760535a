"""The one exception of dlbridge's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlbridge._plan import Plan


class ConversionRefused(BufferError, ValueError):
    """A conversion that would have been wrong, unsafe, or against the policy.

    Nothing was handed over and nothing leaked. ``reasons`` says what was met and why it is
    refused, ``fix`` names the call that would work (None where nothing would), and ``plan`` is the
    whole decision, as ``explain`` gives it.
    """

    plan: Plan
    reasons: tuple[str, ...]
    fix: str | None

    def __init__(
        self, message: str, plan: Plan, reasons: tuple[str, ...] = (), fix: str | None = None
    ) -> None:
        super().__init__(message)
        self.plan = plan
        self.reasons = reasons
        self.fix = fix

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.plan, self.reasons, self.fix)
