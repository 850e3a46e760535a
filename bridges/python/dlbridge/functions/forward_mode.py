"""What torch's forward mode follows. Apart, since by_torch.py brings in torch's compiler."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def has_tangent(x: torch.Tensor) -> bool:
    """Whether a derivative comes with it, which NumPy could not tell of."""
    # Torch looks for one only where there is a storage, and a shape.
    if forward_ad._current_level < 0 or x.layout is not torch.strided or x.is_nested:
        return False
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
