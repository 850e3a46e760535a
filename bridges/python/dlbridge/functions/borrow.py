"""borrow: writing to one library's memory from the other, for the length of a block."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import dlbridge
from dlbridge import Policy, count_write, explain, to_numpy, to_torch

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[Any]

_WRITABLE = Policy(grad="detach_writable", readonly="refuse", copy=False)
_COPYING = " to copy, or "  # a way out that is none here, before the one that is


class ConversionRefused(dlbridge.ConversionRefused, RuntimeError):
    """A refusal that is torch's own too: an in-place operation would raise a RuntimeError."""


def borrow(x: Any, /) -> AbstractContextManager[Any]:
    if isinstance(x, np.ndarray):
        return _tensor_over(x)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _ArrayOver(x)
    raise TypeError(
        f"borrow() takes a torch.Tensor or a numpy.ndarray, not {type(x).__name__}; "
        "dlbridge.to_numpy(x, copy=False) is a view of it, writable where that is safe"
    )


def _refuse(x: Any, target: str, why: str, fix: str | None) -> ConversionRefused:
    plan = explain(x, target, policy=_WRITABLE)
    plan = plan._replace(refused=True, view=False, writable=False, reasons=(why,), fix=fix)
    way_out = f"; use {fix}" if fix else ""
    return ConversionRefused(f"cannot borrow a {plan.source}: {why}{way_out}", plan, (why,), fix)


def _refuse_for(refused: dlbridge.ConversionRefused, x: Any, target: str) -> ConversionRefused:
    """The refusal of a view for writing, which says what to do in order to borrow."""
    fix = (refused.fix or "").rpartition(_COPYING)[2] or None
    if fix is not None and fix.startswith(("the call", "policy=")):
        fix = f"dlbridge.to(x, {target!r}, copy=True), and write the result back"
        if explain(x, target, copy=True).refused:
            fix = None
    return _refuse(x, target, "; ".join(refused.reasons), fix)


# --- a tensor's array ----------------------------------------------------------------------------


class _Views(list["weakref.ref[_BorrowedArray]"]):
    """The arrays of a block, as long as somebody holds them."""

    room = 64

    def add(self, array: _BorrowedArray) -> None:
        if len(self) >= self.room:
            self[:] = [each for each in self if each() is not None]
            self.room = 2 * len(self) + 64
        self.append(weakref.ref(array))


class _BorrowedArray(np.ndarray[Any, Any]):
    """An array of a block, which knows the views that are made of it. What is computed of it is
    plain."""

    _views: _Views | None = None  # None: made of no array of a block

    def __array_finalize__(self, made_of: Any) -> None:
        if isinstance(made_of, _BorrowedArray) and made_of._views is not None:
            self._views = made_of._views
            self._views.add(self)

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: bool = False, /
    ) -> Any:
        if array is self or array.ndim > 0:
            return array
        return array[()]

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


class _ArrayOver:
    """The block in which a tensor's memory is an array that may be written to."""

    __slots__ = ("_array", "_held", "_root", "_tensor", "_views")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._array: Any = None

    def __enter__(self) -> Any:
        if self._array is not None:  # which would be left open
            raise RuntimeError("this block of borrow() is open; call borrow() for each block")
        tensor = self._tensor
        in_graph = tensor.requires_grad and _is_recorded(tensor)
        if _forward_mode().has_tangent(tensor):
            raise _refuse(
                tensor,
                "numpy",
                "its tangent would stay what it was, whatever NumPy wrote",
                "torch.autograd.forward_ad.unpack_dual(x).primal.clone()",
            )
        try:
            root = self._root = to_numpy(tensor, policy=_WRITABLE)
        except dlbridge.ConversionRefused as refused:
            raise _refuse_for(refused, tensor, "numpy") from refused
        if not root.flags.writeable:
            raise _refuse(
                tensor,
                "numpy",
                "more than one of its elements lie in the same memory, so that a write to one "
                "would change others",
                "x.clone()",
            )
        self._held = sys.getrefcount(root)
        array = root.view(_BorrowedArray)
        self._views = array._views = _Views()
        # The values are not what the graph computed any more.
        if in_graph:
            _written_function().apply(tensor)  # raises what else torch forbids, in its own words
        elif not count_write(tensor):
            _require_inference_mode(tensor)
        self._array = array
        return array

    def __exit__(self, raised: Any, *error: object) -> None:
        root, array = self._root, self._array
        self._array = None
        count_write(self._tensor)
        array.setflags(write=False)
        closed = 1
        for each in self._views:
            view = each()
            if view is None:
                continue
            if view.base is root:
                closed += 1
            elif not np.may_share_memory(view, root):  # a copy is the user's own
                continue
            view.flags.writeable = False
            del view
        root.setflags(write=False)
        # What is left on the memory beside the views that were just closed: plain arrays, by
        # asarray. Only the difference counts: what these frames add is another number in each
        # CPython.
        if raised is None and sys.getrefcount(root) - self._held > closed:
            raise BufferError(
                "a plain array (of np.asarray, say) is left over the memory that was borrowed, and "
                "could write to it unseen; del it before the block ends, or np.copy what is to be "
                "kept"
            )


def _is_recorded(tensor: torch.Tensor) -> bool:
    """Whether autograd records a write to what requires grad, under torch's rules for in-place
    operations, where they can be known without doing one."""
    import torch

    if tensor.is_inference() or not torch.is_grad_enabled():
        return False
    base = tensor._base if tensor._is_view() else None
    of_leaf = base is not None and base.is_leaf and base.requires_grad
    if tensor.is_leaf or of_leaf:
        what = "a view of a leaf Variable" if of_leaf else "a leaf Variable"
        raise _refuse(
            tensor,
            "numpy",
            f"{what} that requires grad is being used in an in-place operation",
            "dlbridge.borrow(x) under torch.no_grad()",
        )
    return True


def _require_inference_mode(tensor: torch.Tensor) -> None:
    if not sys.modules["torch"].is_inference_mode_enabled():
        raise _refuse(
            tensor,
            "numpy",
            "an in-place update of an inference tensor outside of inference_mode() is not allowed",
            "x.clone()",
        )


@functools.cache
def _forward_mode() -> Any:
    from dlbridge.functions import forward_mode  # which needs torch

    return forward_mode


@functools.cache
def _written_function() -> Any:
    """The autograd function that stands for what NumPy wrote. Made late, since it needs torch."""
    import torch

    class WrittenByNumPy(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, tensor: Any) -> Any:
            context.mark_dirty(tensor)
            return tensor

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            raise RuntimeError(
                "NumPy wrote to this tensor inside dlbridge.borrow(), and autograd has no "
                "gradient of that; borrow under torch.no_grad() if the values written are "
                "constants of no effect on the gradient, or use dlbridge.numpy_function"
            )

    return WrittenByNumPy


# --- an array's tensor ---------------------------------------------------------------------------


@contextmanager
def _tensor_over(array: _Array) -> Iterator[torch.Tensor]:
    import torch

    if not array.flags.writeable:
        raise _refuse(array, "torch", "nobody may write to its memory", "x.copy()")
    try:
        tensor = to_torch(array, policy=_WRITABLE)
    except dlbridge.ConversionRefused as refused:
        raise _refuse_for(refused, array, "torch") from refused
    locked = _can_be_unlocked(array)
    if locked:
        array.flags.writeable = False
    try:
        yield tensor
    finally:
        # Torch knows no read-only tensors, but storages that refuse to be written to.
        close = getattr(torch._C, "_set_throw_on_mutable_data_ptr", None)
        if close is not None:
            close(tensor)
        if locked:
            array.flags.writeable = True


def _can_be_unlocked(array: _Array) -> bool:
    """Whether NumPy would let the flag be set again: a matter of what the memory belongs to."""
    if array.flags.owndata:
        return True
    base: Any = array.base
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return True
        if base.flags.owndata:
            return False
        base = base.base
    try:
        with memoryview(base) as memory:
            return not memory.readonly
    except TypeError:
        return False
