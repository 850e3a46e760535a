"""For Dask: arrays from worker to worker of one machine, in blocks that both map."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from distributed.comm.addressing import get_address_host
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from dlbridge import dumps, explain, loads, share, to_numpy, to_torch
from dlbridge.processes.places import fetch, place_for_one

_SMALL = 1 << 16  # bytes: less is sooner sent than shared


def _is_here(context: dict[str, Any] | None) -> bool:
    """Whether both ends of the connection are on this machine."""
    ends = [(context or {}).get(end, {}).get("address") for end in ("sender", "recipient")]
    hosts = {get_address_host(end) for end in ends if end}
    return len(hosts) == 1 and all(ends)


def _writer(kind: type[Any]) -> Callable[..., tuple[dict[str, Any], list[Any]]]:
    def write(x: Any, context: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
        if type(x) is not kind or explain(x, "process").refused:
            # Dask asks the next of its serializers then.
            raise NotImplementedError("means more than its memory, or has none on the host")
        if x.nbytes >= _SMALL and _is_here(context) and not getattr(x, "requires_grad", False):
            return {"place": place_for_one(share(x))}, []
        data, buffers = dumps(x)
        return {"dumps": True}, [data, *(memoryview(buffer).cast("B") for buffer in buffers)]

    return write


_Read: TypeAlias = "Callable[[dict[str, Any], list[Any]], Any]"


def _reader(convert: Callable[[Any], Any], of_dask: _Read) -> _Read:
    def read(header: dict[str, Any], frames: list[Any]) -> Any:
        if "place" in header:
            return convert(fetch(header["place"]))
        if "dumps" in header:
            return loads(frames[0], frames[1:])
        return of_dask(header, frames)  # of a subclass, for which it has a writer and no reader

    return read


def same_host(dask_worker: Any = None) -> None:
    """From now on this process sends NumPy's arrays and torch's tensors so, to its own machine.

    In the client and in every worker: ``client.register_worker_callbacks(same_host)`` makes it so
    for workers of now and of later. To other machines, and below 64 KiB, they go as frames. A
    receiver gets what ``recv`` gives: arrays that are read-only, tensors whose pages are copied
    when they are written to. Subclasses, objects and sparse tensors go as Dask sends them, and
    tensors that require grad in frames, so that they do there too. Both ends have to be of one
    user and see each other's processes.
    """
    kinds: list[tuple[type, Callable[[Any], Any]]] = [(np.ndarray, to_numpy)]
    try:
        import torch
    except ImportError:
        pass
    else:
        kinds.append((torch.Tensor, to_torch))
    for kind, convert in kinds:
        # Dask's own way: it is registered when a type of the library first comes by, and would
        # then take the place of ours.
        importlib.import_module(f"distributed.protocol.{kind.__module__}")
        of_dask = dask_deserialize.dispatch(kind)
        dask_serialize.register(kind)(_writer(kind))
        dask_deserialize.register(kind)(_reader(convert, of_dask))
