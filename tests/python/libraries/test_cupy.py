"""CuPy: memory of a GPU only."""

from __future__ import annotations

import pytest
from library_tests import VALUES

import dlbridge

cupy = pytest.importorskip("cupy")


def test_without_a_gpu_it_is_refused() -> None:
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            pytest.skip("there is a GPU")
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    with pytest.raises(dlbridge.ConversionRefused, match="cuda"):
        dlbridge.to(VALUES, "cupy")
    plan = dlbridge.explain(VALUES, "cupy")
    assert plan.refused and any("no memory of the host" in note for note in plan.notes)
