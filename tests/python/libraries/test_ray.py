"""Ray: the transport between actors, and ManagedTensors out of band in its store."""

from __future__ import annotations

from textwrap import dedent

import pytest
from dlb_support import run_child

pytest.importorskip("ray")


def test_tensors_go_from_actor_to_actor_in_blocks() -> None:
    run_child(
        dedent("""
        import os, sys, warnings
        warnings.filterwarnings("ignore")
        # Ray's workers begin in folders of their own.
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        import numpy as np, ray, torch
        import dlbridge
        from dlbridge.engines.ray import transport

        name = transport()
        assert transport() == name  # again is no error
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)

        @ray.remote(enable_tensor_transport=True)
        class Actor:
            @ray.method(tensor_transport=name)
            def born(self, n):
                made = dlbridge.shared_empty(n)
                self.mine = dlbridge.to_torch(made)
                self.mine[:] = 1
                return self.mine

            @ray.method(tensor_transport=name)
            def tree(self):
                conj = torch.tensor([1 + 2j]).conj()
                part = torch.ones(9)[::2]
                return {"a": torch.arange(3), "b": [torch.ones(2), conj], "part": part}

            def copies(self):
                return dlbridge.stats().by_target["process"].copies

            def change(self, x):
                x["a"][0] = 7
                return x["a"].tolist(), x["b"][1].tolist(), x["part"].shape[0]

            def add(self, x):
                x += 1
                return x.sum().item()

            def total(self):
                return self.mine.sum().item()

        one, two, three = Actor.remote(), Actor.remote(), Actor.remote()
        tree = one.tree.remote()
        for reader in (two, three):  # as often as anybody asks, each with memory of its own
            assert ray.get(reader.change.remote(tree)) == ([7, 1, 2], [1 - 2j], 5)
        copies = ray.get(one.copies.remote())
        assert ray.get(two.add.remote(one.born.remote(1 << 20))) == 2 << 20
        assert ray.get(one.total.remote()) == 1 << 20  # what a receiver writes is its own
        assert ray.get(one.copies.remote()) == copies
        """)
    )


def test_managed_tensors_are_out_of_band_in_the_store() -> None:
    run_child(
        dedent("""
        import os, sys, warnings
        warnings.filterwarnings("ignore")
        # Ray's workers begin in folders of their own.
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        import numpy as np, ray, torch
        import dlbridge
        ray.init(num_cpus=1, include_dashboard=False, object_store_memory=200 << 20)
        held = ray.put(dlbridge.from_dlpack(torch.arange(1 << 20)))
        first, second = ray.get(held), ray.get(held)
        assert first.readonly and dlbridge.to_numpy(first)[-1] == (1 << 20) - 1
        assert first.data_ptr == second.data_ptr  # in the store, where nobody writes
        assert dlbridge.to_torch(first)[5] == 5
        """)
    )
