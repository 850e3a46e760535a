"""JAX, where it is installed: legacy capsules only, immutable arrays, 64-byte alignment or a copy.

The last file: what importing JAX leaves behind slows every collection.
"""

from __future__ import annotations

import numpy as np
import pytest

import dlbridge

jax = pytest.importorskip("jax")


def test_jax_is_a_target() -> None:
    result = dlbridge.to(np.arange(6, dtype="f4").reshape(2, 3)[::-1], "jax")
    assert isinstance(result, jax.Array)
    assert result.tolist() == [[3, 4, 5], [0, 1, 2]]


def test_an_immutable_jax_array_never_becomes_writable(road: str) -> None:
    source = jax.numpy.arange(6.0)
    array = dlbridge.to_numpy(source)
    assert array.tolist() == [0, 1, 2, 3, 4, 5] and not array.flags.writeable
    dlbridge.to_torch(source).fill_(9)
    assert source.tolist() == [0, 1, 2, 3, 4, 5]
    assert dlbridge.from_dlpack(source).readonly
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(source, policy="strict")


def test_a_managed_tensor_is_taken_by_jax() -> None:
    tensor = dlbridge.from_dlpack(np.arange(6, dtype="f4"))
    assert jax.dlpack.from_dlpack(tensor).tolist() == [0, 1, 2, 3, 4, 5]
