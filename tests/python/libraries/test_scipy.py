"""SciPy's sparse arrays and matrices: refused with the call that helps, densified when asked, and
to and from torch's by their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlbridge

sparse = pytest.importorskip("scipy.sparse")
pytest.importorskip("scipy.sparse.linalg")
torch = pytest.importorskip("torch")

# torch says once that its compressed layouts are in beta.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")

VALUES = np.array([[0, 1, 0, 0], [2, 0, 3, 4]], "f4")
DENSIFY = dlbridge.host.replace(layout="densify")
KINDS = [
    f"{layout}_{kind}"
    for layout in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
    for kind in ("array", "matrix")
]
IN_PARTS = [name for name in KINDS if name[:3] in ("csr", "csc", "coo", "bsr")]


def addresses(x: Any) -> list[int]:
    """Where its values and its indices are, whichever of the two libraries it is of."""
    if not isinstance(x, torch.Tensor):
        rows = [x.row] if x.format == "coo" else [x.indptr, x.indices]
        return [array.ctypes.data for array in (x.data, *rows)]
    if x.layout is torch.sparse_coo:
        arrays = [x._values(), x._indices()]
    elif x.layout in (torch.sparse_csr, torch.sparse_bsr):
        arrays = [x.values(), x.crow_indices(), x.col_indices()]
    else:
        arrays = [x.values(), x.ccol_indices(), x.row_indices()]
    return [array.data_ptr() for array in arrays]


def compressed(pointers: Any, indices: Any, dtype: Any = "i8") -> Any:
    """A CSR tensor of 2 x 3 that nobody has looked at."""
    columns = torch.tensor(np.array(indices, dtype))
    values = torch.ones(len(indices))
    return torch.sparse_csr_tensor(
        torch.tensor(np.array(pointers, "i8")), columns, values, (2, 3), check_invariants=False
    )


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_with_the_call_that_helps(name: str) -> None:
    x = getattr(sparse, name)(VALUES)
    calls = [dlbridge.to_numpy, dlbridge.from_dlpack]
    for call in calls if name in IN_PARTS else [*calls, dlbridge.to_torch]:
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
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        dlbridge.to_numpy(x, policy=DENSIFY, copy=False)
    fix = str(caught.value.fix).rpartition(", or ")[2]
    assert np.array_equal(eval(fix, {"np": np, "x": x}), VALUES)


@pytest.mark.parametrize("dtype", ["i4", "i8"])
@pytest.mark.parametrize("name", [name for name in IN_PARTS if "coo" not in name])
def test_its_parts_are_shared_with_torch_both_ways(name: str, dtype: str) -> None:
    x = getattr(sparse, name)(VALUES)
    x.indptr, x.indices = x.indptr.astype(dtype), x.indices.astype(dtype)
    for policy in ("strict", "host", "zero_copy"):
        plan = dlbridge.explain(x, "torch", policy=policy)
        assert plan.view and plan.writable and plan.result == f"torch {x.format}"
        tensor = dlbridge.to_torch(x, policy=policy)
        assert tensor.layout is getattr(torch, f"sparse_{x.format}")
        assert addresses(tensor) == addresses(x)
        assert torch.equal(tensor.to_dense(), torch.from_numpy(VALUES))
        assert dlbridge.explain(tensor, "scipy", policy=policy).view
        back = dlbridge.to(tensor, "scipy", policy=policy)
        assert type(back).__name__ == f"{x.format}_array" and back.indices.dtype == dtype
        assert addresses(back) == addresses(x)
        assert np.array_equal(back.toarray(), VALUES)
    tensor.values().mul_(2)
    assert np.array_equal(x.toarray(), 2 * VALUES)


@pytest.mark.parametrize("name", [name for name in IN_PARTS if "coo" in name])
def test_the_indices_of_coo_become_one_array_by_a_copy_and_stay_it(name: str) -> None:
    x = getattr(sparse, name)(VALUES)
    plan = dlbridge.explain(x, "torch")
    assert plan.steps == ("gather",) and not plan.view
    assert plan.bytes_copied == 2 * 4 * 8 and "a view, a copy" in plan.notes[0]
    for call in (dlbridge.explain, dlbridge.to):
        with pytest.raises(dlbridge.ConversionRefused, match=r"x.tocsr\(\)"):
            if call(x, "torch", copy=False).refused:
                dlbridge.to_torch(x, policy="strict")
    tensor = dlbridge.to_torch(x)
    assert torch.equal(tensor.to_dense(), torch.from_numpy(VALUES))
    assert addresses(tensor)[0] == addresses(x)[0]
    back = dlbridge.to(tensor, "scipy", policy="strict")
    assert addresses(back) == addresses(tensor) and np.array_equal(back.toarray(), VALUES)
    again = dlbridge.to_torch(back, policy="strict")
    assert addresses(again) == addresses(tensor)
    back.row, back.col = back.col, back.row  # no more the rows of one array, in its order
    assert not dlbridge.explain(back, "torch").view


def test_what_occurs_twice_in_coo_is_still_summed() -> None:
    tensor = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 3))
    x = dlbridge.to(tensor, "scipy")
    assert x.sum_duplicates() is None and x.data.tolist() == [3.0]
    twice = sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 3))
    assert dlbridge.to_torch(twice).to_dense()[0, 1] == 3


def test_what_one_of_the_two_has_not_is_refused_as_sparse() -> None:
    batch, blocks = torch.ones(2, 2, 2).to_sparse_csr(), torch.eye(4).to_sparse_bsc((2, 2))
    for x in (torch.ones(2, 2, 2).to_sparse(1), torch.ones(()).to_sparse(), batch, blocks):
        assert dlbridge.explain(x, "scipy").refused
        with pytest.raises(dlbridge.ConversionRefused, match="with a sparse layout") as caught:
            dlbridge.to(x, "scipy")
        assert str(caught.value.fix).endswith("x.to_dense()")
    with pytest.raises(dlbridge.ConversionRefused, match="with a sparse layout"):
        dlbridge.to_torch(sparse.csr_array(VALUES), order="C")  # it lies in none


def test_the_policy_decides_of_each_part() -> None:
    x = sparse.csr_array(VALUES)
    wide = dlbridge.to_torch(x, dtype="float64")
    assert wide.dtype is torch.float64 and addresses(wide)[1:] == addresses(x)[1:]
    assert dlbridge.explain(x, "torch", dtype="float64").bytes_copied == 4 * 8
    assert dlbridge.explain(x, "torch", dtype="float64").result_dtype == "float64"
    for own, target in ((x, "scipy"), (dlbridge.to_torch(x), "torch")):
        assert dlbridge.to(own, target) is own
        copied = dlbridge.to(own, target, copy=True)
        assert not set(addresses(copied)) & set(addresses(own))
        size = 4 * 4 + (3 + 4) * 4
        assert dlbridge.explain(own, target, policy="snapshot").bytes_copied == size
    x.data.flags.writeable = False
    assert dlbridge.explain(x, "torch").bytes_copied == x.data.nbytes
    assert addresses(dlbridge.to_torch(x))[0] != addresses(x)[0]
    plan = dlbridge.explain(x, "torch", policy="zero_copy")
    assert plan.refused and not plan.steps and "nobody may write" in plan.reasons[0]
    with pytest.raises(dlbridge.ConversionRefused, match=r"x.copy\(\)"):
        dlbridge.to_torch(x, policy="zero_copy")
    with pytest.raises(dlbridge.ConversionRefused, match=r"float16"):
        dlbridge.to(torch.eye(2).half().to_sparse(), "scipy")


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_tensor_in_a_graph_gives_values_that_nobody_writes_to(layout: str) -> None:
    modes = (torch.enable_grad, torch.no_grad, torch.inference_mode)
    for made_in, asked_in in ((a, b) for a in modes for b in modes):
        with made_in():
            tensor = getattr(torch.tensor(VALUES), layout)().requires_grad_()
        with asked_in():
            x = dlbridge.to(tensor, "scipy")
            plan = dlbridge.explain(tensor, "scipy")
            assert plan.view and not plan.writable and plan.steps == ("detach", "mark read-only")
            assert not x.data.flags.writeable and addresses(x) == addresses(tensor)
            with pytest.raises(dlbridge.ConversionRefused, match="requires grad"):
                dlbridge.to(tensor, "scipy", policy="strict")
            assert dlbridge.to(tensor, "scipy", writable=True).data.flags.writeable
    assert tensor.requires_grad
    assert np.array_equal(x @ np.ones(4), VALUES.sum(1))  # SciPy computes with it


def test_parts_of_a_tensor_that_disagree_are_refused() -> None:
    for bad in (
        compressed([0, 5, 0], []),
        compressed([1, 1, 2], [0, 1]),
        compressed([0, 2, 1], [0, 1]),
        compressed([0, 1], [0]),
        compressed([0, 1, 2], [0, 3]),
        compressed([0, 1, 2], [-1, 0]),
        compressed([0, 1, 2], [0, 1], dtype="i4"),
        compressed([0, 1, 1], [0, 1]),
        torch.sparse_coo_tensor([[0], [3]], [1.0], (2, 3), check_invariants=False),
        torch.sparse_coo_tensor([[-1], [0]], [1.0], (2, 3), check_invariants=False),
    ):
        for target in ("scipy", "torch"):
            with pytest.raises(
                dlbridge.ConversionRefused, match=f"{target} refused them: "
            ) as caught:
                dlbridge.to(bad, target, copy=True)
            assert "of a torch.Tensor together" in str(caught.value)


def test_parts_of_an_array_that_disagree_are_refused() -> None:
    def broken(name: str, part: str, values: Any) -> Any:
        x = getattr(sparse, name)(VALUES)
        setattr(x, part, np.array(values))
        return x

    for x in (
        broken("csr_array", "indices", [1, 0, 2]),
        broken("csc_matrix", "indices", [1, 0, 1, 7]),
        broken("csr_array", "indptr", [0, 9, 4]),
        broken("bsr_array", "data", np.ones((4, 1))),
        broken("coo_array", "data", [1.0]),
        broken("coo_array", "coords", [[0.0] * 4, [1.0] * 4]),
        broken("coo_array", "coords", [[0] * 4, [9] * 4]),
    ):
        with pytest.raises(dlbridge.ConversionRefused, match=r"refused them|not as many") as caught:
            dlbridge.to_torch(x)
        assert "scipy." in str(caught.value) and caught.value.fix is None


@pytest.mark.parametrize("name", ["csr_array", "csc_matrix", "bsr_array"])
def test_indices_out_of_order_are_refused_with_the_call_that_sorts_them(name: str) -> None:
    x = getattr(sparse, name)(VALUES.T if "csc" in name else VALUES)
    x.indices[-2:] = x.indices[-2:][::-1].copy()
    with pytest.raises(dlbridge.ConversionRefused, match="not in order") as caught:
        dlbridge.to_torch(x)
    assert caught.value.fix is not None
    tensor = dlbridge.to_torch(eval(caught.value.fix, {"x": x}))
    assert np.array_equal(tensor.to_dense(), x.toarray())


def test_what_has_no_values_crosses_too() -> None:
    for shape in ((0, 3), (2, 0), (2, 3)):
        for name in ("csr_array", "csc_array", "coo_array"):
            tensor = dlbridge.to_torch(getattr(sparse, name)(shape))
            assert tuple(tensor.shape) == shape and tensor._nnz() == 0
            assert dlbridge.to(tensor, "scipy").shape == shape
    assert dlbridge.to(torch.zeros(3).to_sparse(), "scipy").shape == (3,)
    assert dlbridge.to(torch.ones(2, 2, 2).to_sparse(), "scipy").sum() == 8


def test_a_warning_that_is_an_error_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(*_: Any, **__: Any) -> Any:
        raise UserWarning("in beta")

    monkeypatch.setattr(torch.ops.aten, "_sparse_compressed_tensor_unsafe", warns)
    with pytest.raises(UserWarning, match="in beta"):
        dlbridge.to_torch(sparse.csr_array(VALUES))


def test_a_shared_part_outlives_the_array() -> None:
    x = sparse.csr_array(VALUES)
    tensor = dlbridge.to_torch(x)
    del x
    back = dlbridge.to(tensor, sparse)
    del tensor
    assert np.array_equal(back.toarray(), VALUES)


def test_a_default_device_is_no_word_about_where_the_parts_are() -> None:
    with torch.device("meta"):
        assert dlbridge.to_torch(sparse.csr_array(VALUES)).device.type == "cpu"


def test_the_ledger_has_each_part() -> None:
    with dlbridge.no_copies():
        dlbridge.to_torch(sparse.csr_array(VALUES))
        with pytest.raises(dlbridge.ConversionRefused, match="would copy 64 bytes"):
            dlbridge.to_torch(sparse.coo_array(VALUES))
    with dlbridge.trace() as ledger:
        dlbridge.to_torch(sparse.csr_array(VALUES))
    assert ledger.total[:4] == (3, 3, 0, 0)
    with dlbridge.trace() as ledger:
        dlbridge.to(torch.ones(3), "scipy")
    assert ledger.total[:4] == (1, 1, 0, 0)


def test_scipys_own_functions_take_sparse_tensors_and_answer_in_them() -> None:
    a, b = torch.eye(3).mul(2).to_sparse_csc(), torch.ones(3)
    solved = dlbridge.accepts("scipy")(sparse.linalg.spsolve)(a, b)
    assert torch.equal(solved, torch.full((3,), 0.5))
    squared = dlbridge.accepts("scipy")(lambda x: x @ x)(a)
    assert squared.layout is torch.sparse_csc and torch.equal(squared.to_dense(), 4 * torch.eye(3))


def test_it_is_a_leaf_of_a_tree_and_what_else_scipy_has_is_no_array() -> None:
    x = sparse.csr_array(VALUES)
    with pytest.raises(dlbridge.ConversionRefused, match=r"at x\['x'\]"):
        dlbridge.to_numpy({"x": x, "y": VALUES})
    tree = dlbridge.to_torch({"x": [x, x], "y": VALUES}, dtype="float64")
    assert tree["x"][0] is tree["x"][1] and tree["x"][0].layout is torch.sparse_csr
    assert tree["x"][0].crow_indices().dtype is torch.int32
    assert dlbridge.explain({"x": x}, "torch")["x"].view
    there = dlbridge.to(tree, "scipy")
    assert isinstance(there["y"], np.ndarray) and np.array_equal(there["x"][0].toarray(), VALUES)
    assert torch.equal(dlbridge.to_torch({"x": x}, policy=DENSIFY)["x"], torch.tensor(VALUES))
    operator: Any = sparse.linalg.aslinearoperator(x)
    with pytest.raises(TypeError, match="expected an array"):
        dlbridge.to_numpy(operator)


@pytest.mark.parametrize("base", [sparse.csr_array, sparse.coo_matrix])
def test_a_class_of_ones_own_is_of_its_base(base: Any) -> None:
    class Own(base):  # type: ignore[misc]
        pass

    x = Own(VALUES)
    assert dlbridge.to_torch({"x": x})["x"].to_dense().tolist() == VALUES.tolist()
    with pytest.raises(dlbridge.ConversionRefused, match="sparse layout"):
        dlbridge.to_numpy(x)


def test_threads_leave_torchs_own_checks_as_they_were() -> None:
    """torch's check_invariants= is a flag of the process for its time."""
    from concurrent.futures import ThreadPoolExecutor

    x = sparse.random_array((50, 50), density=0.2, format="csr", rng=np.random.default_rng(0))
    wrong = x.copy()
    wrong.indices[0] = 10**6
    before = torch.sparse.check_sparse_tensor_invariants.is_enabled()

    def attempt(number: int) -> bool:
        if number % 2:
            return bool(dlbridge.to_torch(x).layout is torch.sparse_csr)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_torch(wrong)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(attempt, range(400)))
    assert torch.sparse.check_sparse_tensor_invariants.is_enabled() is before


def test_indices_with_gaps_are_copied_and_the_plan_says_so() -> None:
    x = sparse.csr_array(VALUES)
    x.indices = np.repeat(x.indices, 2)[::2]
    assert not dlbridge.explain(x, "torch").view
    y = dlbridge.to_torch(x)
    assert y.to_dense().tolist() == VALUES.tolist()
    assert y.values().data_ptr() == x.data.ctypes.data


def test_what_is_coalesced_stays_it() -> None:
    x = torch.tensor(VALUES).to_sparse_coo().coalesce()
    for again in (dlbridge.to_torch(x, copy=True), dlbridge.to_torch(x, dtype="float64")):
        assert again.is_coalesced()
        assert again.values().tolist() == x.values().tolist()
    assert dlbridge.to(x, "scipy").has_canonical_format


def test_a_row_may_give_its_parts_in_a_list() -> None:
    from dlbridge._registry import library_for

    row = library_for("scipy")
    assert row.parts is not None

    def in_a_list(x: Any) -> Any:
        parts = row.parts(x)  # type: ignore[misc]
        return parts._replace(arrays=list(parts.arrays))

    try:
        dlbridge.register(row._replace(parts=in_a_list))
        assert dlbridge.to_torch(sparse.csr_array(VALUES)).to_dense().tolist() == VALUES.tolist()
    finally:
        dlbridge.register(row)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_tensor_that_a_row_reads_crosses_by_its_parts(layout: str) -> None:
    class Holder:
        tensor = torch.from_numpy(VALUES).to_sparse(layout=getattr(torch, f"sparse_{layout}"))

    Holder.__module__ = "holder_of_sparse"
    dlbridge.register(dlbridge.Library("holder_of_sparse", read=lambda x: x.tensor))
    made = dlbridge.to(Holder(), "scipy")
    assert made.format == layout and made.toarray().tolist() == VALUES.tolist()
    assert made.data.ctypes.data == addresses(Holder.tensor)[0]
    plan = dlbridge.explain(Holder(), "scipy")
    assert not plan.refused and plan.result == f"scipy {layout}"
    # The parts would not know what the row says of the whole.
    row = dlbridge.Library("holder_of_sparse", read=lambda x: x.tensor, immutable=True)
    dlbridge.register(row)
    assert dlbridge.explain(Holder(), "scipy").refused
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to(Holder(), "scipy")
