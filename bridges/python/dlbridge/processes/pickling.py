"""Pickle 5 in which tensors are buffers out of band: for one pickler, and nothing global."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dlbridge._core import ManagedTensor, from_dlpack, to_numpy, to_torch
from dlbridge._errors import ConversionRefused, refused
from dlbridge._policy import Policy, host
from dlbridge._targets import to
from dlbridge.ledger.blocks import policy_in_force

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    _Array: TypeAlias = npt.NDArray[Any]

Buffer: TypeAlias = Any  # of the buffer protocol, which typing knows from Python 3.12 on
# How an array is made of a buffer: its dtype, shape, strides (bytes; None: C order), and where the
# first element is (bytes).
_Parts = tuple[Any, tuple[int, ...], "tuple[int, ...] | None", int]


def dumps(
    obj: Any, *, policy: Policy | str | None = None
) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """``obj`` as a pickle, and the memory of its tensors beside it, which is not copied.

    Tensors of torch, NumPy and JAX and ManagedTensors, wherever in ``obj`` they are: only what a
    view shows goes along, pending conj and neg bits are resolved, and a graph is cut, as the policy
    has it. A leaf of a graph stays one. What has no memory of its own on the host is pickled as its
    library does. The buffers keep the memory valid; they are read-only where it is.
    """
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    pickler = pickle.Pickler(file, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = _reducers(policy)
    pickler.dump(obj)
    return file.getvalue(), buffers


def loads(data: Buffer, buffers: Iterable[Any] = (), *, policy: Policy | str | None = None) -> Any:
    """What ``dumps`` was given, over the memory of the buffers.

    Arrays over read-only buffers (bytes) are read-only; torch, which knows no read-only memory,
    gets copies of those, as the policy has it. A pickle can run any code: take one only from those
    whose code you would run.
    """
    if policy is None:
        return pickle.loads(data, buffers=buffers)
    return Unpickler(io.BytesIO(data), buffers=buffers, policy=policy).load()


class Pickler(pickle.Pickler):
    """``pickle.Pickler`` that sends tensors as ``dumps`` does; for engines of one's own.

    Without a ``buffer_callback`` they are copied into the pickle, once.
    """

    def __init__(
        self,
        file: Any,
        protocol: int | None = None,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
        policy: Policy | str | None = None,
    ) -> None:
        protocol = 5 if protocol is None else protocol
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        if protocol >= 5:
            self.dispatch_table = _reducers(policy)


class Unpickler(pickle.Unpickler):
    """``pickle.Unpickler`` that makes tensors under a policy; ``pickle``'s own can do without."""

    def __init__(
        self, file: Any, *, buffers: Iterable[Any] = (), policy: Policy | str | None = None
    ) -> None:
        super().__init__(file, buffers=buffers)
        self._policy = policy

    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if self._policy is not None and (found is _torch_tensor or found is _jax_array):
            return functools.partial(found, policy=self._policy)
        return found


class _Reducers:
    """What pickle asks for an object's parts, by its type."""

    def __init__(self, policy: Policy, torch: Any, jax: Any) -> None:
        self._policy = policy
        self._copies = policy.copy is True
        on_the_host = policy.replace(device="refuse")
        self.by_type: dict[type, Callable[[Any], Any]] = {
            np.ndarray: self._reduce_array,
            ManagedTensor: lambda x: reduce_managed(x, 5, on_the_host),
        }
        if torch is not None:
            self.by_type |= dict.fromkeys((torch.Tensor, torch.nn.Parameter), self._reduce_tensor)
            # Not every torch has named tensors.
            self._has_names = getattr(torch.Tensor, "has_names", lambda x: False)
            self._own_way = policy.replace(dtype="bits")
        if jax is not None:
            self.by_type |= dict.fromkeys(jax.Array.__subclasses__(), self._reduce_jax)

    def _reduce_tensor(self, x: torch.Tensor) -> Any:
        torch = sys.modules["torch"]
        plain = x.layout is torch.strided and x.is_cpu and not (x.is_quantized or x.is_nested)
        if not plain or x.__dict__ or x._backward_hooks or self._has_names(x):
            return x.__reduce_ex__(5)  # type: ignore[no-untyped-call]
        # A type that NumPy lacks crosses as its bits, so that neither side needs ml_dtypes.
        array = to_numpy(x, policy=self._own_way)
        dtype = x.dtype if array.dtype.kind == "u" else None
        buffer, parts = _sent(array, self._policy)
        leaf = x.requires_grad and x.is_leaf
        return _torch_tensor, (buffer, parts, dtype, leaf, type(x) is not torch.Tensor)

    def _reduce_jax(self, x: Any) -> Any:
        if len(x.devices()) > 1 or not _has_whole_bytes(x.dtype):
            return x.__reduce_ex__(5)
        return _jax_array, _parts(to_numpy(x, policy=self._policy), self._policy)

    def _reduce_array(self, x: _Array) -> Any:
        if self._copies:
            x = x.copy()
        # NumPy's own way where no memory can be shown, and in Fortran's order, where it shows it.
        dtype = x.dtype
        known = dtype.isbuiltin == 1 and dtype.kind in "biufc" and not x.flags.fnc
        if known or dtype.isbuiltin == 2:
            return _array, _parts(x, self._policy)
        return x.__reduce_ex__(5)


def _has_whole_bytes(dtype: Any) -> bool:
    """Not of JAX's random keys, nor of small integers, of which NumPy's take a byte each."""
    return isinstance(dtype, np.dtype) and not re.match(r"[a-z]+[124](_|$)", dtype.name)


_remembered = functools.lru_cache(_Reducers)


def _reducers(policy: Policy | str | None) -> dict[type, Callable[[Any], Any]]:
    """Ours, with those that anybody has registered by now."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    ours = _remembered(  # of libraries that are imported to their end
        policy_in_force(policy),
        torch if hasattr(torch, "nn") else None,
        jax if hasattr(jax, "Array") else None,
    )
    return copyreg.dispatch_table | ours.by_type


def _parts(x: _Array, policy: Policy) -> tuple[Any, ...]:
    """What ``_array`` makes an array of. A type of ml_dtypes cannot be shown as a buffer."""
    if x.dtype.isbuiltin != 2:
        return _sent(x, policy)
    return *_sent(x.view(f"u{x.itemsize}"), policy), x.dtype


def _sent(x: _Array, policy: Policy) -> tuple[pickle.PickleBuffer, _Parts]:
    """The memory that the array shows, or a packed copy where that is less."""
    if not x.flags.c_contiguous:
        first, extent = _extent(x.shape, x.strides, x.itemsize)
        if x.size and extent <= x.nbytes:
            memory: Buffer = _bytes_from(x, extent)
            return pickle.PickleBuffer(memory), (_letters(x.dtype), x.shape, x.strides, first)
        x = to_numpy(x, order="C", policy=policy)
    packed: Buffer = x
    return pickle.PickleBuffer(packed), (_letters(x.dtype), x.shape, None, 0)


@functools.cache
def _letters(dtype: Any) -> str:
    """One text for each, which a pickle then has once."""
    letters: str = dtype.str
    return letters


def _extent(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[int, int]:
    """From the lowest byte: where the first element is, and where the memory ends."""
    steps = [step * (n - 1) for n, step in zip(shape, strides, strict=True)]
    first = -sum(step for step in steps if step < 0)
    return first, first + sum(step for step in steps if step > 0) + size


def _bytes_from(x: _Array, extent: int) -> _Array:
    """The bytes of an array's memory, from its lowest element on."""
    lowest = x[tuple(slice(-1, None) if step < 0 else slice(1) for step in x.strides)]
    return np.lib.stride_tricks.as_strided(
        lowest.reshape(1).view(np.uint8), (extent,), (1,), writeable=x.flags.writeable
    )


def _memory(buffer: Buffer, parts: _Parts) -> _Array:
    """The bytes of what is not packed. NumPy 2.4 does not ask whether there are any."""
    kind, shape, strides, first = parts
    memory = np.frombuffer(buffer, np.uint8)
    extent = _extent(shape, strides or (), np.dtype(kind).itemsize)
    if extent != (first, memory.nbytes):
        raise ValueError(f"a buffer has {memory.nbytes} bytes where its array has {extent[1]}")
    return memory


def _array(buffer: Buffer, parts: _Parts, dtype: Any = None) -> _Array:
    kind, shape, strides, first = parts
    if buffer is None:  # for which NumPy would make memory with whatever is in it
        raise TypeError("None is in the place of a buffer that was sent beside the pickle")
    made: _Array
    if strides is None:
        made = np.frombuffer(buffer, kind).reshape(shape)
    else:
        memory = _memory(buffer, parts)
        made = np.ndarray(shape, kind, memory, first, strides)
        if memory.nbytes < made.nbytes:  # its elements share memory: read-only, as what was sent
            made.flags.writeable = False
    return made if dtype is None else made.view(dtype)


def _torch_tensor(
    buffer: Buffer,
    parts: _Parts,
    dtype: torch.dtype | None,
    leaf: bool,
    parameter: bool,
    policy: Policy | str | None = None,
) -> torch.Tensor:
    kind, shape, strides, _ = parts
    if strides is None:
        made = to_torch(_array(buffer, parts), policy=policy)
    else:  # first the memory: of what is expanded that is less than the elements
        memory = _memory(buffer, parts).view(kind)
        steps = [step // memory.itemsize for step in strides]
        made = to_torch(memory, policy=policy).as_strided(shape, steps)
    if dtype is not None:
        made = made.view(dtype)
    if parameter:
        as_parameter: torch.Tensor = sys.modules["torch"].nn.Parameter(made, leaf)
        return as_parameter
    return made.requires_grad_() if leaf else made


def _jax_array(*parts: Any, policy: Policy | str | None = None) -> Any:
    return to(_array(*parts), "jax", policy=policy)


_WITHOUT_DEVICES = host.replace(device="refuse")


def reduce_managed(x: ManagedTensor, protocol: int, policy: Policy = _WITHOUT_DEVICES) -> Any:
    """``ManagedTensor.__reduce_ex__``. Called by ``_core``."""
    try:
        array = to_numpy(x, policy=policy)
    except ConversionRefused as error:
        what = f"cannot pickle a ManagedTensor of dtype {x.dtype} on {x.device}"
        away = any(f"on {x.device}" in reason for reason in error.reasons)
        # Nothing of pickle's own takes a policy.
        fix = re.sub(r"^(policy=\S+)", r"dlbridge.dumps(x, \1)", error.fix or "") or None
        fix = "dlbridge.from_dlpack(x, device='cpu')" if away else fix
        raise refused(what, "; ".join(error.reasons), fix) from error
    buffer, *parts = _parts(array, policy)
    if protocol >= 5:
        return _managed, (buffer, x.readonly, *parts)
    return _managed, ((bytes if x.readonly else bytearray)(buffer), x.readonly, *parts)


def _managed(buffer: Buffer, readonly: bool, *parts: Any) -> ManagedTensor:
    made = _array(buffer, *parts)
    if readonly:
        made.flags.writeable = False
    return from_dlpack(made)
