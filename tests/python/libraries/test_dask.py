"""Dask: arrays and tensors between workers of one machine."""

from __future__ import annotations

from textwrap import dedent

import pytest
from dlb_support import run_child

pytest.importorskip("distributed")


def test_arrays_and_tensors_go_from_worker_to_worker_in_blocks(tmp_path: object) -> None:
    run_child(
        dedent(f"""
        import numpy as np, torch
        from distributed import Client, LocalCluster, wait
        import dlbridge
        from dlbridge.engines.dask import same_host

        def made(kind, n):
            return np.arange(n) if kind == "array" else torch.arange(n).bfloat16()

        def seen(x):
            from_block = dlbridge._core.explain_plan(x, "process", *[None] * 7, False).view
            writeable = x.flags.writeable if isinstance(x, np.ndarray) else True
            return type(x).__name__, float(x[-1]), from_block, writeable

        def tree(n):
            return {{"a": np.arange(n), "b": [torch.ones(n, requires_grad=True)], "c": "text"}}

        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                          dashboard_address=None, local_directory={str(tmp_path)!r}) as cluster, \\
             Client(cluster) as client:
            one, two = client.scheduler_info()["workers"]
            same_host()
            client.register_worker_callbacks(same_host)

            def told(kind, n):
                x = client.submit(made, kind, n, workers=[one])
                return client.submit(seen, x, workers=[two]).result()

            assert told("array", 1 << 17) == ("ndarray", (1 << 17) - 1, True, False)
            assert told("array", 10) == ("ndarray", 9.0, False, True)  # less is sent as it is
            assert told("tensor", 1 << 17)[:2] == ("Tensor", float(1 << 17))
            got = client.submit(tree, 1 << 17).result()
            assert got["a"][-1] == (1 << 17) - 1 and got["b"][0].sum() == 1 << 17
            assert client.submit(seen, client.scatter(np.ones(1 << 17))).result()[1] == 1.0
            text = client.submit(lambda: np.array(["a"] * (1 << 17))).result()
            assert text[-1] == "a"  # of no memory that could be shared: as Dask sends it

            # Dask registers its own way when the first subclass comes by.
            n = 1 << 17
            more = {{
                "leaf": torch.ones(n, requires_grad=True),
                "parameter": torch.nn.Parameter(torch.ones(n)),
                "matrix": np.matrix(np.ones((2, n))),
                "sparse": torch.eye(n // 256).to_sparse(),
                "objects": np.array([lambda: 1] * n),
            }}
            for name, x in more.items():
                sent = client.submit(lambda x: x, client.scatter(x, workers=[one]), workers=[two])
                got = sent.result(timeout=60)
                assert type(got) is type(x) and got.shape == x.shape, name
                assert getattr(got, "requires_grad", None) == getattr(x, "requires_grad", None)
            assert told("array", 1 << 17) == ("ndarray", (1 << 17) - 1, True, False)
            assert told("tensor", 1 << 17)[:2] == ("Tensor", float(1 << 17))
        """)
    )
