"""Loading for torch: a data set over arrays and files, and batches written in one go.

Imported when one of its names is first asked for, since it needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from dlbridge import _core, _ledger
from dlbridge._plan import Plan
from dlbridge._targets import explain
from dlbridge._trees import is_array


def collate(items: Any, /) -> Any:
    """One batch of a list of samples, for ``DataLoader(collate_fn=dlbridge.collate)``.

    Arrays of any library, all of one shape and dtype, are written straight into one new torch
    tensor: pinned where there is CUDA, in shared memory inside of a worker. Numbers become a tensor
    too; strings and what else there is become a list. Samples may be dictionaries, lists, tuples,
    named tuples and dataclasses of those; the batch has their form.
    """
    items = list(items)
    if not items:
        raise ValueError("collate() needs at least one sample")
    first = items[0]
    if is_array(first):
        return _stacked(items)
    if isinstance(first, (bool, int, float, complex, np.generic)):
        return torch.as_tensor(np.asarray(items))
    kind: Any = type(first)
    if isinstance(first, Mapping):
        _check_alike(items, lambda item: set(item), "keys")
        columns = {key: collate([item[key] for item in items]) for key in first}
        return columns if kind is dict else kind(columns)
    if isinstance(first, (list, tuple)):
        _check_alike(items, len, "length")
        parts = [collate(column) for column in zip(*items, strict=True)]
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first)]
        return kind(**{name: collate([getattr(item, name) for item in items]) for name in names})
    return items


def _check_alike(items: list[Any], trait: Any, name: str) -> None:
    wanted = trait(items[0])
    for place, item in enumerate(items):
        if trait(item) != wanted:
            raise ValueError(
                f"the samples differ in their {name}: {trait(item)} at {place}, {wanted} at 0; "
                "a batch needs samples that are alike"
            )


def _stacked(items: list[Any]) -> torch.Tensor:
    began = time.perf_counter_ns()
    first = items[0]
    if all(isinstance(item, torch.Tensor) for item in items):
        if any(item.is_cuda or item.requires_grad for item in items):
            return torch.stack(items)  # on its device, and in its graph
        dtype, shape = first.dtype, first.shape
        if all(
            item.dtype is dtype and item.shape == shape and item.is_contiguous() for item in items
        ):
            batch = _room((len(items), *shape), dtype)
            torch.stack(items, out=batch)
            _write_down(first, batch, began)
            return batch
    arrays = [item if type(item) is np.ndarray else _core.to_numpy(item) for item in items]
    given = arrays[0].dtype
    native = given.newbyteorder("=") if given.byteorder == ">" else given
    batch = _room((len(arrays), *arrays[0].shape), _torch_dtype(native))
    as_bytes = torch.empty(0, dtype=torch.uint8).set_(  # type: ignore[call-overload]
        batch.untyped_storage(), 0, (batch.nbytes,)
    )
    try:
        _core.gather(as_bytes.numpy().view(native).reshape(batch.shape), arrays)
    except ValueError:
        _check_alike(arrays, lambda array: (array.shape, array.dtype), "shape or dtype")
        raise
    _write_down(first, batch, began)
    return batch


@functools.cache
def _torch_dtype(dtype: Any) -> torch.dtype:
    """Torch's type of the same name. Names alone do not do: its int4 is another than ml_dtypes'."""
    sample = np.empty(0, dtype)
    if explain(sample, "torch", policy="zero_copy").refused:
        _core.to_torch(sample, policy="zero_copy")  # says why
    found = getattr(torch, dtype.name)
    assert isinstance(found, torch.dtype)
    return found


def _room(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor where the batch is wanted, with whatever values."""
    size = math.prod(shape) * dtype.itemsize
    if get_worker_info() is not None:
        # Otherwise the way to the main process would copy it there.
        storage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    elif _there_is_cuda():
        storage = torch.empty(size, dtype=torch.uint8, pin_memory=True).untyped_storage()
    else:
        storage = torch.from_numpy(_rooms.take(size)).untyped_storage()
    room: torch.Tensor = torch.empty(0, dtype=dtype)
    return room.set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]


@functools.cache
def _there_is_cuda() -> bool:
    return torch.cuda.is_available()  # asks the driver each time


class _Rooms(threading.local):
    """Memory of batches, to be used again once nobody looks at the batch any more: fresh memory
    comes page by page from the system, which takes longer than to write a batch into it."""

    kept = 4  # as many batches as a loader may have on their way

    def __init__(self) -> None:
        self.rooms: list[Any] = []

    def take(self, size: int) -> Any:
        """Bytes at a 64-byte boundary."""
        for room in reversed(self.rooms):  # what was used last may be in the cache still
            # The list, the loop and the question: no batch.
            if room.size == size + 64 and sys.getrefcount(room) == 3:
                return _aligned(room, size)
        room = np.empty(size + 64, np.uint8)
        if size >= 1 << 20:
            self.rooms = [*self.rooms[1 - self.kept :], room]
        return _aligned(room, size)


def _aligned(room: Any, size: int) -> Any:
    start = -room.ctypes.data % 64
    return room[start : start + size]


_rooms = _Rooms()


def _write_down(item: Any, batch: torch.Tensor, began: int) -> None:
    if not _ledger.is_open():
        return
    dtype = str(batch.dtype).removeprefix("torch.")
    plan = Plan(
        ("gather",),
        ("the samples of a batch become one tensor",),
        False,
        True,
        batch.nbytes,
        False,
        None,
        f"{len(batch)} × {type(item).__module__.partition('.')[0]}.{type(item).__name__}",
        "torch.Tensor",
        dtype,
        dtype,
        "cpu",
        tuple(batch.shape),
    )
    _ledger.write_down(plan, began, time.perf_counter_ns() - began)


class ArrayDataset(Dataset[Any]):
    """A torch Dataset over arrays: sample ``i`` is ``array[i]`` of each, a view and no copy.

    A source is an array of any library, a ``numpy.memmap``, or the path of a ``.npy`` file, which
    is mapped and not read. All have the same length. One source gives arrays as samples, several
    give tuples. ``transform`` is called with the sample's parts.

    A worker process maps files again by itself, and gets none of their contents sent. Together with
    ``collate`` the memory of the file is read once: into the batch.
    """

    def __init__(self, *sources: Any, transform: Any = None) -> None:
        if not sources:
            raise TypeError("ArrayDataset() needs at least one array or path")
        self.transform = transform
        self._open([_as_array(source) for source in sources])

    def _open(self, arrays: list[Any]) -> None:
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"the arrays differ in length: {lengths}; a sample has a part of each")
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> Any:
        parts = tuple(array[index] for array in self.arrays)
        if self.transform is not None:
            return self.transform(*parts)
        return parts[0] if len(parts) == 1 else parts

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitems__(self, indices: Iterable[int]) -> list[Any]:
        """What torch's DataLoader asks for: the samples of a batch."""
        return [self[index] for index in indices]

    def __getstate__(self) -> Any:
        return self.transform, [_mapping_of(array) or array for array in self.arrays]

    def __setstate__(self, state: Any) -> None:
        self.transform, arrays = state
        self._open([each() if isinstance(each, functools.partial) else each for each in arrays])


def _as_array(source: Any) -> Any:
    if isinstance(source, (str, os.PathLike)):
        return np.load(source, mmap_mode="r")
    if isinstance(source, np.memmap):
        return source
    if not is_array(source):
        raise TypeError(
            f"ArrayDataset() takes arrays and paths of .npy files, not {type(source).__name__}"
        )
    return source if isinstance(source, torch.Tensor) else _core.to_numpy(source)


def _mapping_of(array: Any) -> functools.partial[Any] | None:
    """How to map the same part of a file again, where the array is one as it was opened."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return None
    if not isinstance(array.base, np.memmap) and array.flags.forc:
        return functools.partial(
            np.memmap,
            os.fspath(array.filename),
            dtype=array.dtype,
            mode="r" if array.mode in ("r", None) else array.mode if array.mode != "w+" else "r+",
            offset=array.offset,
            shape=array.shape,
            order="C" if array.flags.c_contiguous else "F",
        )
    return None
