"""``python -m dlbridge doctor``: which of the installed libraries conform, and who reaches whom."""

from dlbridge.doctor._command import main

__all__ = ["main"]
