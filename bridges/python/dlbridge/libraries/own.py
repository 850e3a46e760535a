"""Our own tensor, as a target among the others."""

from dlbridge import Library

ROWS = (
    Library(
        name="dlbridge",
        # No object is told by this: ctypes' types get the name of the module that makes them.
        modules=("dlbridge.ManagedTensor",),
        object="dlbridge.ManagedTensor",
        bridge="dlbridge",
    ),
    Library(
        name="process",
        modules=("dlbridge.process",),  # no object is told by this either
        object="dlbridge.Shared",
        bridge="process",
    ),
)
