"""SciPy's sparse arrays and matrices: refused with the call that helps, or densified when asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlbridge

sparse = pytest.importorskip("scipy.sparse")
pytest.importorskip("scipy.sparse.linalg")
torch = pytest.importorskip("torch")

VALUES = np.array([[0, 1, 0], [2, 0, 3]], "f4")
DENSIFY = dlbridge.host.replace(layout="densify")
KINDS = [
    f"{layout}_{kind}"
    for layout in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
    for kind in ("array", "matrix")
]


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_with_the_call_that_helps(name: str) -> None:
    x = getattr(sparse, name)(VALUES)
    for call in (dlbridge.to_numpy, dlbridge.to_torch, dlbridge.from_dlpack):
        with pytest.raises(dlbridge.ConversionRefused, match="with a sparse layout") as caught:
            call(x)
        assert f"scipy.{name}" in str(caught.value)
        assert str(caught.value.fix).endswith("x.toarray()")
    assert np.array_equal(dlbridge.to_numpy(x.toarray()), VALUES)


@pytest.mark.parametrize("name", KINDS)
def test_it_is_densified_where_the_policy_says_so(name: str) -> None:
    x = getattr(sparse, name)(VALUES)
    plan = dlbridge.explain(x, "torch", policy=DENSIFY)
    assert plan.steps == ("densify", "gather") and plan.bytes_copied == VALUES.nbytes
    assert torch.equal(dlbridge.to_torch(x, policy=DENSIFY), torch.from_numpy(VALUES))
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x, policy=DENSIFY, copy=False)


def test_it_is_a_leaf_of_a_tree_and_what_else_scipy_has_is_no_array() -> None:
    x = sparse.csr_array(VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match=r"at x\['x'\]"):
        dlbridge.to_torch({"x": x, "y": VALUES})
    assert torch.equal(dlbridge.to_torch({"x": x}, policy=DENSIFY)["x"], torch.tensor(VALUES))
    operator: Any = sparse.linalg.aslinearoperator(x)
    with pytest.raises(TypeError, match="expected an array"):
        dlbridge.to_numpy(operator)
