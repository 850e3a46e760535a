"""NumPy, which has a compiled bridge."""

from dlbridge import Library

ROWS = (Library(name="numpy", object="numpy.ndarray", bridge="numpy"),)
