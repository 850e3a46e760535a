"""The Plan: what a conversion does, decided before it does anything."""

from __future__ import annotations


class Plan:
    """What a conversion would do, or did, and why.

    ``steps`` are the names of what is done, in order; ``reasons`` say why, one each, or why the
    conversion is ``refused``; ``fix`` then names the call that would work. ``view`` tells whether
    the result shares the source's memory, ``writable`` whether it may be written to, and
    ``bytes_copied`` what a copy costs.
    """

    # In the order of the arguments.
    __slots__ = (
        "steps", "reasons", "view", "writable", "bytes_copied", "refused", "fix", "source",
        "result", "dtype", "result_dtype", "device", "shape", "message",
    )  # fmt: skip  # noqa: RUF023

    steps: tuple[str, ...]
    reasons: tuple[str, ...]
    view: bool
    writable: bool
    bytes_copied: int
    refused: bool
    fix: str | None
    source: str
    result: str
    dtype: str
    result_dtype: str
    device: str
    shape: tuple[int, ...] | None
    message: str

    def __init__(
        self,
        steps: tuple[str, ...],
        reasons: tuple[str, ...],
        view: bool,
        writable: bool,
        bytes_copied: int,
        refused: bool,
        fix: str | None,
        source: str,
        result: str,
        dtype: str,
        result_dtype: str,
        device: str,
        shape: tuple[int, ...] | None,
        message: str,
    ) -> None:
        values = (
            steps, reasons, view, writable, bytes_copied, refused, fix, source, result, dtype,
            result_dtype, device, shape, message,
        )  # fmt: skip
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Plan says what was decided; it cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Plan says what was decided; it cannot be changed")

    @classmethod
    def of_refusal(cls, reasons: tuple[str, ...], fix: str | None) -> Plan:
        """The Plan of a source that could not be read at all."""
        source = "DLPack tensor"
        return cls((), reasons, False, False, 0, True, fix, source, "", "", "", "", None, "")

    def _outcome(self) -> str:
        if self.refused:
            return "refused"
        access = "writable" if self.writable else "read-only"
        if self.view:
            return f"{access} view, nothing copied"
        return f"{access} copy of {self.bytes_copied:,} bytes"

    def __str__(self) -> str:
        parts = [self.source, self.dtype]
        if self.shape is not None:
            parts.append(str(self.shape))
        if self.device:
            parts.append(f"on {self.device}")
        target = self.result
        if self.result_dtype != self.dtype:
            target += f" {self.result_dtype}"
        head = " ".join(part for part in parts if part)
        lines = [f"{head} -> {target}: {self._outcome()}" if target else f"{head}: refused"]
        if self.steps:
            lines.append("  steps: " + ", ".join(self.steps))
        lines += [f"  because: {reason}" for reason in self.reasons]
        if self.fix:
            lines.append(f"  instead: {self.fix}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        outcome = "refused" if self.refused else "view" if self.view else "copy"
        return (
            f"Plan({outcome}, steps={self.steps!r}, writable={self.writable}, "
            f"bytes_copied={self.bytes_copied}, reasons={self.reasons!r}, fix={self.fix!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.steps, self.reasons, self.view, self.writable, self.bytes_copied))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__slots__)
