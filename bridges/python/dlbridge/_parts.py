"""What two libraries hold in the same parts, as sparse arrays: each part crosses by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dlbridge import _core
from dlbridge._errors import ConversionRefused, refused
from dlbridge._plan import Plan
from dlbridge._registry import Library, Parts, library_named


class Apart:
    """An object that was taken apart for a target. Called by ``_core``."""

    def __init__(self, x: Any, parts: Parts, source: Library, target: Library) -> None:
        self._x = x
        self._parts = parts
        self._source = source
        self._target = target
        self.arrays = tuple(parts.arrays)

    def together(self, arrays: tuple[Any, ...]) -> Any:
        """The target's object of the arrays, which are its own by now."""
        try:
            return self._target.layouts[self._parts.layout](self._parts._replace(arrays=arrays))
        except (ConversionRefused, MemoryError, ImportError, Warning):
            raise
        except Exception as error:
            told = self._source.refusal(self._x, error) if self._source.refusal else None
            name = self._source.object or f"{self._source.name}.{type(self._x).__name__}"
            what = f"cannot put the parts of a {name} together as {self._target.name}"
            said = f"{self._target.name} refused them: {str(error).rstrip('.')}"
            raise told or refused(what, said) from error

    def explained(self, whole: Plan, plans: tuple[Plan, ...]) -> Plan:
        """The Plans of the parts as one, of which ``whole`` says what it is of."""
        notes = _each(plan.notes for plan in plans)
        if len({plan.view for plan in plans}) > 1:
            outcomes = ", ".join("a view" if plan.view else "a copy" for plan in plans)
            notes += (f"its parts cross one by one, the values first: {outcomes}",)
        stopped = any(plan.refused for plan in plans)
        return whole._replace(
            steps=() if stopped else _each(plan.steps for plan in plans),
            reasons=_each(plan.reasons for plan in plans if plan.refused or not stopped),
            view=not stopped and all(plan.view for plan in plans),
            writable=not stopped and all(plan.writable for plan in plans),
            bytes_copied=0 if stopped else sum(plan.bytes_copied for plan in plans),
            refused=stopped,
            fix=next((plan.fix for plan in plans if plan.refused), None),
            result=f"{self._target.name} {self._parts.layout}",
            dtype=plans[0].dtype,
            result_dtype=plans[0].result_dtype,
            notes=() if stopped else notes,
        )


def _each(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for each in texts for text in each))


def taken_apart(x: Any, target: str) -> Apart | None:
    """None where one of the two libraries has no such parts."""
    source, library = library_named(_core.library_of(x) or ""), library_named(target)
    if source is None or source.parts is None or library is None or not library.layouts:
        return None
    parts = source.parts(x)
    if parts is None or parts.layout not in library.layouts:
        return None
    return Apart(x, parts, source, library)
