"""torch, which has a compiled bridge."""

from dlbridge import Library

ROWS = (Library(name="torch", object="torch.Tensor", bridge="torch"),)
