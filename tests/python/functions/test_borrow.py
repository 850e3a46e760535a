"""borrow: writes that autograd hears of, and views that end with their block."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import shares
from torch.autograd import forward_ad

import dlbridge

MODIFIED = "modified by an inplace operation"


def graph() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """w, x and y = x w with x = w: the right gradient of w is 2, and x is saved for it."""
    w = torch.ones(3, requires_grad=True)
    x = w * 1
    return w, x, (x * w).sum()


# --- pain point 3: a write that autograd does not see -------------------------------------------


def test_without_borrow_the_gradient_is_silently_wrong() -> None:
    """What is mended here, as torch's users write it."""
    w, x, y = graph()
    x.detach().numpy()[:] = 100
    y.backward()
    assert w.grad is not None and w.grad.tolist() == [101.0] * 3


def test_with_to_numpy_the_view_is_read_only(road: str) -> None:
    w, x, y = graph()
    with pytest.raises(ValueError, match="read-only"):
        dlbridge.to_numpy(x)[:] = 100
    y.backward()
    assert w.grad is not None and w.grad.tolist() == [2.0] * 3


@pytest.mark.parametrize("how", ["x", "x.detach()", "x under no_grad", "a view of x"])
def test_with_borrow_backward_raises(how: str, road: str) -> None:
    w, x, y = graph()
    if how == "x under no_grad":
        with torch.no_grad(), dlbridge.borrow(x) as array:
            array[:] = 100
    else:
        target = {"x": x, "x.detach()": x.detach(), "a view of x": x[1:]}[how]
        with dlbridge.borrow(target) as array:
            array[:] = 100
    with pytest.raises(RuntimeError, match=MODIFIED):
        y.backward()
    assert w.grad is None


def test_backward_inside_the_block_raises_too() -> None:
    _, x, y = graph()
    with dlbridge.borrow(x.detach()) as array:
        array[:] = 100
        with pytest.raises(RuntimeError, match=MODIFIED):
            y.backward()


def test_what_numpy_wrote_has_no_gradient_and_backward_says_so() -> None:
    _, x, _ = graph()
    with dlbridge.borrow(x) as array:
        array[0] = 100
    assert x.tolist() == [100.0, 1.0, 1.0]
    with pytest.raises(RuntimeError, match="NumPy wrote to this tensor"):
        x.sum().backward()


def test_a_backward_that_needs_no_old_value_is_right() -> None:
    w = torch.ones(3, requires_grad=True)
    x = w * 2
    y = (x + 1).sum()  # saves nothing of x
    with torch.no_grad(), dlbridge.borrow(x) as array:
        array[:] = 100
    y.backward()
    assert w.grad is not None and w.grad.tolist() == [2.0] * 3


def test_a_value_saved_after_the_block_is_used_as_it_is() -> None:
    w = torch.ones(3, requires_grad=True)
    data = torch.zeros(3)
    with dlbridge.borrow(data) as array:
        array[:] = 7
    (w * data).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [7.0] * 3


# --- torch's rules for in-place operations ------------------------------------------------------


@pytest.mark.parametrize("part", [slice(None), slice(1, None)])
def test_a_leaf_that_requires_grad_is_refused_as_torch_refuses_it(part: slice) -> None:
    leaf = torch.ones(3, requires_grad=True)
    target = leaf if part == slice(None) else leaf[part]
    version = leaf._version
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad") as of_torch:
        target.add_(1)
    with pytest.raises(RuntimeError) as ours, dlbridge.borrow(target):
        pass
    assert isinstance(ours.value, dlbridge.ConversionRefused)
    assert ours.value.fix == "dlbridge.borrow(x) under torch.no_grad()"
    assert str(of_torch.value).rstrip(".") in str(ours.value)
    assert leaf._version == version, "a refusal must not disturb what others saved"
    with torch.no_grad(), dlbridge.borrow(target) as array:
        array[0] = 5
    assert 5.0 in leaf.tolist() and leaf._version > version and leaf.requires_grad


def test_one_of_several_views_is_refused_as_torch_refuses_it() -> None:
    part = (torch.ones(3, requires_grad=True) * 2).unbind()[0]
    with pytest.raises(RuntimeError, match="returns multiple views"), dlbridge.borrow(part):
        pass


def test_a_write_is_counted_at_both_ends(road: str) -> None:
    tensor = torch.ones(3)
    with dlbridge.borrow(tensor):
        assert tensor._version == 1
    assert tensor._version == 2
    with torch.inference_mode():
        assert not dlbridge.count_write(torch.ones(3))
    for other in (np.ones(3), None):
        with pytest.raises((TypeError, AttributeError, RuntimeError)):
            dlbridge.count_write(other)


def test_a_tensor_with_a_tangent_is_refused() -> None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones(3), torch.ones(3))
        with pytest.raises(RuntimeError, match="its tangent would stay") as caught:
            dlbridge.borrow(dual).__enter__()
        assert isinstance(caught.value, dlbridge.ConversionRefused)
        with dlbridge.borrow(eval(str(caught.value.fix), {"torch": torch, "x": dual})) as array:
            array[:] = 2
        with dlbridge.borrow(torch.ones(2)) as array:
            array[:] = 2
        with pytest.raises(dlbridge.ConversionRefused, match="nested"):
            dlbridge.borrow(torch.nested.nested_tensor([torch.ones(2)])).__enter__()
    assert array.tolist() == [2, 2]


def test_inference_tensors_only_inside_inference_mode(road: str) -> None:
    with torch.inference_mode():
        tensor = torch.ones(3)
        with dlbridge.borrow(tensor) as array:
            array[0] = 3
        assert tensor.tolist() == [3.0, 1.0, 1.0]
    with pytest.raises(dlbridge.ConversionRefused, match="inference"), dlbridge.borrow(tensor):
        pass


REFUSED = {
    "expanded": (lambda: torch.ones(1).expand(3), "x.clone()"),
    "conj": (lambda: torch.ones(3, dtype=torch.complex64).conj(), "x.resolve_conj()"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "x.to_dense()"),
    "read-only array": (lambda: np.broadcast_to(1.0, 3), "x.copy()"),
    "reversed array": (lambda: np.ones(3)[::-1], "x.copy()"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_with_a_way_out(name: str) -> None:
    make, fix = REFUSED[name]
    with pytest.raises(dlbridge.ConversionRefused) as refused, dlbridge.borrow(make()):
        pass
    assert refused.value.fix == fix
    assert refused.value.plan.refused and refused.value.reasons


def test_a_refusal_survives_pickle() -> None:
    tensor = torch.ones(3, requires_grad=True)
    with pytest.raises(dlbridge.ConversionRefused) as caught, dlbridge.borrow(tensor):
        pass
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert (str(again), again.reasons) == (str(caught.value), caught.value.reasons)


def test_what_is_no_tensor_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="to_numpy"):
        dlbridge.borrow([1.0])


# --- views kept beyond the block ----------------------------------------------------------------


def test_views_are_read_only_after_the_block(road: str) -> None:
    tensor = torch.zeros(4, 3)
    with dlbridge.borrow(tensor) as array:
        views = [array, array[1:], array.T, array[0], array[1:][::-1], array.reshape(-1)]
        for view in views:
            assert view.flags.writeable and shares(view, array)
            view += 1
    before = tensor.clone()
    for view in views:
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 9
    assert torch.equal(tensor, before)
    assert array.sum() == before.sum()  # still there to be read


def test_the_rows_of_a_loop_need_no_care() -> None:
    tensor = torch.ones(3, 2)
    with dlbridge.borrow(tensor) as array:
        for row in array:
            row /= row.sum()
        for _ in range(200):  # what is kept while others come and go
            (array[0], array[1])
    assert tensor.tolist() == [[0.5, 0.5]] * 3
    assert not row.flags.writeable


def test_what_is_computed_is_the_users_own() -> None:
    tensor = torch.ones(3)
    with dlbridge.borrow(tensor) as array:
        own = [array + 1, array.copy(), np.sqrt(array), array[[0, 2]], np.zeros_like(array)]
        own += [np.ones(3).view(type(array))[1:]]
        total = array.sum()
    for each in own:
        each[...] = 9
    assert type(own[0]) is np.ndarray and type(total) is np.float32
    assert tensor.tolist() == [1.0] * 3


def test_a_plain_array_left_over_is_an_error() -> None:
    tensor = torch.ones(3)
    with pytest.raises(BufferError, match="plain array"), dlbridge.borrow(tensor) as array:
        plain = np.asarray(array)
    del plain
    with dlbridge.borrow(tensor) as array:
        plain = np.asarray(array)
        del plain


def test_an_error_inside_the_block_comes_out_and_the_block_is_over() -> None:
    tensor = torch.ones(3)
    version = tensor._version
    with pytest.raises(ZeroDivisionError), dlbridge.borrow(tensor) as array:
        array[0] = 5
        raise ZeroDivisionError
    assert not array.flags.writeable and tensor._version > version


def test_a_block_is_opened_once_at_a_time() -> None:
    tensor = torch.zeros(3)
    block = dlbridge.borrow(tensor)
    with block as array:
        with pytest.raises(RuntimeError, match="is open"):
            block.__enter__()
        array[0] = 1
    assert not array.flags.writeable
    with block as array:
        array[1] = 2
    assert tensor.tolist() == [1, 2, 0]


def test_the_tensor_may_die_in_the_block() -> None:
    tensor = torch.full((1000,), 7.0)
    with dlbridge.borrow(tensor) as array:
        del tensor
        array += 1
    assert array.sum() == 8000


def test_a_borrowed_array_in_another_thread() -> None:
    tensor = torch.zeros(8)

    def fill(part: Any) -> None:
        part[...] = 3

    with dlbridge.borrow(tensor) as array:
        workers = [threading.Thread(target=fill, args=(part,)) for part in np.split(array, 2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        del workers
    assert tensor.tolist() == [3.0] * 8


# --- the other way ------------------------------------------------------------------------------


def test_a_tensor_over_an_array(road: str) -> None:
    array = np.zeros(4, dtype="f4")
    with dlbridge.borrow(array) as tensor:
        tensor += 2
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    assert array.tolist() == [2.0] * 4
    array[0] = 9  # NumPy's again


@pytest.mark.skipif(
    not hasattr(torch._C, "_set_throw_on_mutable_data_ptr"), reason="torch cannot close a storage"
)
def test_the_tensor_cannot_be_written_to_afterwards() -> None:
    array = np.zeros(4, dtype="f4")
    with dlbridge.borrow(array) as tensor:
        part = tensor[1:]
    for each in (tensor, part):
        with pytest.raises(RuntimeError):
            each.add_(1)
    assert tensor.sum() == 0 and array.tolist() == [0.0] * 4


def test_the_flag_comes_back_also_where_numpy_would_not_set_it() -> None:
    """An array of np.from_dlpack could not be made writable again, so it is not closed."""
    array = np.from_dlpack(torch.zeros(3))
    assert array.flags.writeable
    with dlbridge.borrow(array) as tensor:
        tensor += 1
    array += 1
    assert array.tolist() == [2.0] * 3
    base = np.zeros(6)
    part = base[::2]
    with dlbridge.borrow(part) as tensor:
        assert not part.flags.writeable
    assert part.flags.writeable


def test_a_borrow_is_in_the_ledger() -> None:
    with dlbridge.trace() as log, dlbridge.borrow(torch.ones(2)):
        pass
    assert [(each.outcome, each.file) for each in log] == [("view", __file__)]


def test_a_fix_is_none_where_no_copy_would_help() -> None:
    meta = torch.ones(2, device="meta")
    with pytest.raises(dlbridge.ConversionRefused) as refused, dlbridge.borrow(meta):
        pass
    assert refused.value.fix is None and "use" not in str(refused.value)
    misaligned = np.frombuffer(bytearray(100), "f8", count=3, offset=3)
    with pytest.raises(dlbridge.ConversionRefused) as refused, dlbridge.borrow(misaligned):
        pass
    fix = (refused.value.fix or "").partition(", and")[0]
    assert torch.equal(eval(fix, {"dlbridge": dlbridge, "x": misaligned}), torch.zeros(3).double())
