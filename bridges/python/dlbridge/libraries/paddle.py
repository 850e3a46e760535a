"""Paddle."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import dlbridge
from dlbridge import Capabilities, Library, _core
from dlbridge._errors import refused
from dlbridge.libraries import COMPLEX, FLOATS, INTEGERS


def _read(x: Any) -> Any:
    if hasattr(x, "is_sparse") and x.is_sparse():
        raise refused("cannot take a paddle.Tensor in", "its layout is sparse", "x.to_dense()")
    return x if getattr(x, "stop_gradient", True) else x.detach()


class _Handed:
    """Lives as long as Paddle holds the memory at an address, up to its last element."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.tensors: list[Callable[[], Any]] = []  # weak references


_handed: weakref.WeakValueDictionary[int, _Handed] = weakref.WeakValueDictionary()


def _take(managed: dlbridge.ManagedTensor) -> Any:
    """Paddle's import; a view of what Paddle holds already where it does.

    Paddle 3.3 knows a deleter by the address of its data: of two tensors at one address, it calls
    the newer one's when the older ends, and the other never.
    """
    import paddle

    address = managed.data_ptr
    last = sum((n - 1) * stride for n, stride in zip(managed.shape, managed.strides, strict=True))
    handed = _handed.get(address) if managed.nbytes else None
    if handed is None:
        handed = _Handed(last)
        if managed.nbytes:
            _handed[address] = handed
        tensor = paddle.utils.dlpack.from_dlpack(_core.hold(managed, handed))
        handed.tensors.append(weakref.ref(tensor))
        return tensor
    handed.tensors = [each for each in handed.tensors if each() is not None]
    there = handed.tensors[0]() if handed.tensors else None
    alike = there is not None and str(there.dtype).rpartition(".")[2] == str(managed.dtype)
    if there is not None and alike and last <= handed.last:
        view = paddle.as_strided(there.detach(), list(managed.shape), list(managed.strides))
        handed.tensors.append(weakref.ref(view))
        return view
    return paddle.utils.dlpack.from_dlpack(dlbridge.from_dlpack(managed, copy=True))


def _conditions(x: Any) -> Iterable[str]:
    return () if getattr(x, "stop_gradient", True) else ("in_graph",)


ROWS = (
    Library(
        name="paddle",
        object="paddle.Tensor",
        legacy_writable=True,
        read=_read,
        conditions=_conditions,
        fixes={"in_graph": "x.detach()", "negative_strides": "x.contiguous()"},
        capabilities=Capabilities(
            devices=("cpu", "cuda"),
            dtypes=(
                "bool",
                *INTEGERS,
                "uint8",
                *FLOATS,
                *COMPLEX,
                "bfloat16",
                "float8_e4m3fn",
                "float8_e5m2",
            ),
            strides="non-negative",
            max_dimensions=9,
        ),
        take=_take,
        address=lambda result: int(result.data_ptr()),
        quirks={
            "always": "paddle ignores byte_offset (it is applied before), leaks 80 bytes for each "
            "tensor that it takes, and loses a deleter where it takes the same memory twice (it is "
            "given a view of what it has)",
            "negative_strides": "paddle takes negative strides, and fails when they are read",
            "missing_dtype": "paddle has no unsigned types beyond uint8, and takes uint16 for "
            "bfloat16",
            "read_only": "paddle drops the read-only flag",
        },
    ),
)
