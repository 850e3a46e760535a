"""The Plan: what a conversion does, decided before it does anything."""

# Annotations are evaluated here: those of a NamedTuple that are texts take longer to import.

from typing import NamedTuple


class Plan(NamedTuple):
    """What a conversion would do, or did, and why.

    ``steps`` are the names of what is done, in order; ``reasons`` say why, one each, or why the
    conversion is ``refused``; ``fix`` then names the call that would work. ``view`` tells whether
    the result shares the source's memory, ``writable`` whether it may be written to, and
    ``bytes_copied`` what a copy costs.
    """

    steps: tuple[str, ...]
    reasons: tuple[str, ...]
    view: bool
    writable: bool
    bytes_copied: int
    refused: bool
    fix: str | None
    # What and where: for the printed form, and for tables of crossings.
    source: str = "DLPack tensor"
    result: str = ""
    dtype: str = ""
    result_dtype: str = ""
    device: str = ""
    shape: tuple[int, ...] | None = None
    # How memory of a device is reached; what its taker should know; what its library would do.
    notes: tuple[str, ...] = ()

    @classmethod
    def of_refusal(cls, reasons: tuple[str, ...], fix: str | None) -> "Plan":
        """The Plan of a source that could not be read at all."""
        return cls((), reasons, False, False, 0, True, fix)

    def _outcome(self) -> str:
        if self.refused:
            return "refused"
        access = "writable" if self.writable else "read-only"
        if self.view:
            return f"{access} view, nothing copied"
        return f"{access} copy of {self.bytes_copied:,} bytes"

    def __str__(self) -> str:
        shape = "" if self.shape is None else str(self.shape)
        place = f"on {self.device}" if self.device else ""
        head = " ".join(filter(None, (self.source, self.dtype, shape, place)))
        target = self.result
        if self.result_dtype != self.dtype:
            target += f" {self.result_dtype}"
        lines = [f"{head} -> {target}: {self._outcome()}" if target else f"{head}: refused"]
        if self.steps:
            lines.append("  steps: " + ", ".join(self.steps))
        lines += [f"  because: {reason}" for reason in self.reasons]
        lines += [f"  note: {note}" for note in self.notes]
        if self.fix:
            lines.append(f"  instead: {self.fix}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from dlbridge._notebook import page_of

        return page_of(self)

    def __repr__(self) -> str:
        outcome = "refused" if self.refused else "view" if self.view else "copy"
        return (
            f"Plan({outcome}, steps={self.steps!r}, writable={self.writable}, "
            f"bytes_copied={self.bytes_copied}, reasons={self.reasons!r}, fix={self.fix!r})"
        )
