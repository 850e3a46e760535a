"""torch, which has a compiled bridge."""

from __future__ import annotations

import dlbridge
from dlbridge import Library

ROWS = (Library(name="torch", object="torch.Tensor", convert=dlbridge.to_torch),)
