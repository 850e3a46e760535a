"""256 MiB through Ray and Dask on one machine, each against the engine without dlbridge.

Of the environment of `make libraries`: python bench/run.py --only engines
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from measure import Line

import dlbridge

BYTES = 256 << 20


def line(
    name: str, against: str, ours: Callable[[], Any], peer: Callable[[], Any], goal: float
) -> Line:
    return Line("engines", name, against, ours, peer, goal, 1, 9)


def total(x: Any) -> float:
    """Every page is read."""
    return float(x[:: 4096 // 4].sum())


def with_ray() -> Iterator[Line]:
    import ray

    from dlbridge.engines.ray import transport

    name = transport()
    # Ray's workers begin in folders of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=8 * BYTES
    )
    tensor = torch.ones(BYTES // 4)

    def read(x: Any) -> None:
        total(dlbridge.to_numpy(ray.get(ray.put(x))))

    yield line(
        "Ray: put, get and read",
        "ray.put(tensor)",
        lambda: read(dlbridge.from_dlpack(tensor)),
        lambda: read(tensor),
        0.06,
    )

    @ray.remote(enable_tensor_transport=True)
    class Actor:
        def __init__(self) -> None:
            self.born = dlbridge.to_torch(dlbridge.shared_empty(BYTES // 4))
            self.born[:] = 1

        @ray.method(tensor_transport=name)
        def shared(self) -> torch.Tensor:
            return self.born

        def sent(self) -> torch.Tensor:
            return self.born

        def total(self, x: torch.Tensor) -> float:
            return total(x)

    one, two = Actor.remote(), Actor.remote()
    yield line(
        "Ray: from actor to actor, born shared",
        "without a transport",
        lambda: ray.get(two.total.remote(one.shared.remote())),
        lambda: ray.get(two.total.remote(one.sent.remote())),
        0.05,
    )
    ray.shutdown()


@functools.cache  # a worker makes its array once
def made() -> Any:
    return np.ones(BYTES // 4, np.float32)


def with_dask() -> Iterator[Line]:
    from distributed import Client, LocalCluster

    from dlbridge.engines.dask import same_host

    def sender(*callbacks: Callable[[], None]) -> Callable[[], Any]:
        """What sends the array of one worker to another, each time as the result of a new task."""
        workers = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=place
        )
        client = open_clusters.enter_context(Client(open_clusters.enter_context(workers)))
        one, two = client.scheduler_info()["workers"]
        for callback in callbacks:
            client.register_worker_callbacks(callback)

        def sent() -> None:
            x = client.submit(made, workers=[one], pure=False)
            client.submit(total, x, workers=[two], pure=False).result()

        return sent

    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as open_clusters:
        yield line(
            "Dask: from worker to worker",
            "NumPy without same_host",
            sender(same_host),
            sender(),
            0.25,
        )


def lines() -> Iterator[Line]:
    """None of an engine that is not there."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if importlib.util.find_spec("ray") is not None:
        yield from with_ray()
    if importlib.util.find_spec("distributed") is not None:
        yield from with_dask()
