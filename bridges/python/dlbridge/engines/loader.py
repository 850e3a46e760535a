"""For torch's DataLoader: batches that a worker collates, in memory that the trainer maps."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dlbridge import Shared, share, shared_empty, to_numpy, to_torch


class _Batch:
    """What a worker sends: plain torch tensors to whoever unpickles it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def __reduce__(self) -> Any:
        return to_torch, (self._shared,)


def collate(samples: Sequence[Any]) -> Any:
    """A batch out of samples, for ``DataLoader(collate_fn=collate)``.

    As torch's ``default_collate``, but of arrays of any library: dicts, tuples, lists and
    dataclasses are collated part by part, arrays of one shape are stacked, numbers become a tensor,
    and anything else a list. In a worker the batch is written once, into shared memory that is
    there from the batches before; the trainer gets torch tensors over it, which it may write to.
    """
    from torch.utils.data import get_worker_info

    in_worker = get_worker_info() is not None
    arrays: list[Any] = []
    batch = _collated(samples, arrays, shared=in_worker)
    if not arrays:
        return batch
    return _Batch(share(batch, mode="give")) if in_worker else to_torch(batch)


def _collated(samples: Sequence[Any], arrays: list[Any], shared: bool) -> Any:
    first = samples[0]
    if isinstance(first, Mapping):
        parts = {
            key: _collated([sample[key] for sample in samples], arrays, shared) for key in first
        }
        if type(first) is dict or not isinstance(first, (dict, UserDict)):
            return parts
        made = copy.copy(first)  # of its class
        for key, part in parts.items():  # update() adds to a Counter
            made[key] = part
        return made
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(
            *(_collated(part, arrays, shared) for part in zip(*samples, strict=True))
        )
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        whole = copy.copy(first)
        for name in [*getattr(whole, "__dict__", ())]:
            if isinstance(getattr(type(whole), name, None), functools.cached_property):
                del vars(whole)[name]  # computed from the first sample alone
        for name in (field.name for field in dataclasses.fields(first)):
            if any(hasattr(sample, name) for sample in samples):  # it may not be set yet
                part = _collated([getattr(sample, name) for sample in samples], arrays, shared)
                object.__setattr__(whole, name, part)  # of a frozen one too
        return whole
    if isinstance(first, (list, tuple)):
        if any(len(sample) != len(first) for sample in samples):
            raise ValueError("the samples of a batch have not all the same number of parts")
        return type(first)(_collated(part, arrays, shared) for part in zip(*samples, strict=True))
    if isinstance(first, (str, bytes)) or first is None:
        return list(samples)
    if isinstance(first, (bool, int, float)):
        arrays.append(_numbers(samples))
        return arrays[-1]
    try:
        stack = [to_numpy(sample) for sample in samples]
    except TypeError:  # no arrays
        return list(samples)
    for each in stack:
        if not isinstance(each, np.ndarray):
            raise TypeError(
                "collate takes dicts, lists, tuples and dataclasses apart, and no other tree: not "
                + type(each).__name__
            )
    stacked = _stacked(stack, shared)
    arrays.append(stacked)
    return stacked


def _numbers(samples: Sequence[Any]) -> Any:
    """As one array, without a value that becomes another."""
    made = np.asarray(samples)
    if made.dtype.kind == "O" or any(
        number != sample
        for number, sample in zip(made.tolist(), samples, strict=True)
        if sample == sample
    ):
        raise ValueError(
            "the numbers of a batch do not all fit one type: integers of 64 bits, or floats"
        )
    return made


def _stacked(arrays: list[npt.NDArray[Any]], shared: bool) -> Any:
    first = arrays[0]
    for i, array in enumerate(arrays):
        if array.shape != first.shape or array.dtype != first.dtype:
            raise ValueError(
                f"the samples of a batch are not alike: sample 0 has {first.dtype} of shape "
                f"{first.shape}, sample {i} has {array.dtype} of shape {array.shape}"
            )
    shape = (len(arrays), *first.shape)
    made = shared_empty(shape, first.dtype) if shared else np.empty(shape, first.dtype)
    room = to_numpy(made)
    for i, array in enumerate(arrays):
        room[i] = array
    return made
