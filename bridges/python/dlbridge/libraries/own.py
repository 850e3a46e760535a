"""Our own tensor, as a target among the others."""

from __future__ import annotations

from dlbridge import Capabilities, Library

ROWS = (
    Library(
        name="dlbridge",
        # No object is told by this: ctypes' types get the name of the module that makes them.
        modules=("dlbridge.ManagedTensor",),
        object="dlbridge.ManagedTensor",
        capabilities=Capabilities(
            result="dlbridge.ManagedTensor", devices=None, read_only="honours"
        ),
        take=lambda managed: managed,
    ),
)
