"""JAX and CuPy on the same GPU: views both ways, and results on the host."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from gpu_support import Delay

import dlbridge

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
cupy = pytest.importorskip("cupy")
jax = pytest.importorskip("jax")

if jax.default_backend() != "gpu":
    pytest.skip("JAX finds no GPU", allow_module_level=True)


def test_jax_to_numpy() -> None:
    x = jax.numpy.arange(100_000.0).reshape(100, 1000)
    assert np.array_equal(dlbridge.to_numpy(x), np.asarray(x))
    assert np.array_equal(dlbridge.to_numpy(x.T), np.asarray(x.T))
    half = x.astype(jax.numpy.bfloat16)
    assert np.array_equal(dlbridge.to_numpy(half).view(np.uint16), np.asarray(half).view(np.uint16))


def test_jax_to_torch_is_a_copy_since_it_is_immutable() -> None:
    x = jax.numpy.arange(1000.0)
    t = dlbridge.to_torch(x)
    assert t.device.type == "cuda"
    t += 1
    assert float(x.sum()) == 499_500 and float(t.sum()) == 500_500
    alias = dlbridge.to_torch(x, policy=dlbridge.host.replace(readonly="alias"))
    assert alias.data_ptr() == x.unsafe_buffer_pointer()


def test_torch_to_jax_is_a_view(delay: Delay) -> None:
    t = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        delay()
        t += 2
        x = dlbridge.to(t, "jax")
    assert float(x.sum()) == 2000
    assert x.unsafe_buffer_pointer() == t.data_ptr()
    columns = dlbridge.to(torch.arange(12.0, device="cuda").reshape(3, 4).T, "jax")
    assert columns.tolist() == torch.arange(12.0).reshape(3, 4).T.tolist()


def test_numpy_to_cupy_and_back() -> None:
    array = np.random.default_rng(0).random((300, 400)).T
    there = dlbridge.to(array, "cupy")
    assert isinstance(there, cupy.ndarray)
    assert np.array_equal(cupy.asnumpy(there), array)
    assert np.array_equal(dlbridge.to_numpy(there), array)
    assert np.array_equal(dlbridge.to_numpy(there[::2, 1::3]), array[::2, 1::3])


def test_cupy_to_torch_shares_memory() -> None:
    there = cupy.arange(12.0).reshape(3, 4)
    t = dlbridge.to_torch(there)
    t[0, 0] = 7
    torch.cuda.synchronize()
    assert float(there[0, 0]) == 7
    assert dlbridge.explain(there, "torch").view
