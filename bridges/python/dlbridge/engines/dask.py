"""For Dask: arrays from worker to worker of one machine, in blocks that both map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from distributed.comm.addressing import get_address_host
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from dlbridge import ConversionRefused, dumps, loads, share, to_numpy, to_torch
from dlbridge.processes.places import fetch, place_for_one

_SMALL = 1 << 16  # bytes: less is sooner sent than shared


def _is_here(context: dict[str, Any] | None) -> bool:
    """Whether both ends of the connection are on this machine."""
    ends = [(context or {}).get(end, {}).get("address") for end in ("sender", "recipient")]
    hosts = {get_address_host(end) for end in ends if end}
    return len(hosts) == 1 and all(ends)


def _serialized(x: Any, context: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
    if x.nbytes >= _SMALL and _is_here(context):
        try:
            return {"place": place_for_one(share(x))}, []
        except ConversionRefused:
            pass  # what has no memory on the host goes as its library sends it
    data, buffers = dumps(x)
    return {}, [data, *(memoryview(buffer).cast("B") for buffer in buffers)]


def _reader(convert: Callable[[Any], Any]) -> Callable[[dict[str, Any], list[Any]], Any]:
    def read(header: dict[str, Any], frames: list[Any]) -> Any:
        if "place" in header:
            return convert(fetch(header["place"]))
        return loads(frames[0], frames[1:])

    return read


def same_host(dask_worker: Any = None) -> None:
    """From now on this process sends NumPy's arrays and torch's tensors so, to its own machine.

    In the client and in every worker: ``client.register_worker_callbacks(same_host)`` makes it so
    for workers of now and of later. To other machines, and below 64 KiB, they go as frames. A
    receiver gets what ``recv`` gives: arrays that are read-only, tensors whose pages are copied
    when they are written to. Both ends have to be of one user and see each other's processes.
    """
    kinds: list[tuple[type, Callable[[Any], Any]]] = [(np.ndarray, to_numpy)]
    try:
        import torch
    except ImportError:
        pass
    else:
        kinds.append((torch.Tensor, to_torch))
    for kind, convert in kinds:
        dask_serialize.register(kind)(_serialized)
        dask_deserialize.register(kind)(_reader(convert))
