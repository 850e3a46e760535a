"""Calls the extension with tensors of several libraries, and is refused what cannot be."""

import array
import importlib.util

import numpy as np
import scaling

import dlbridge

matrix = np.arange(6, dtype="f4").reshape(2, 3)
sources = [matrix, matrix.T, matrix[::-1, ::-1], dlbridge.capsule(matrix), memoryview(matrix)]
sources += [array.array("f", range(6)), dlbridge.from_dlpack(matrix)]
tried = ["NumPy"]
if importlib.util.find_spec("torch"):
    import torch

    sources += [torch.arange(6.0, requires_grad=True), torch.arange(12.0)[:6].reshape(3, 2)]
    assert torch.equal(scaling.row_sums(torch.ones(2, 3)), torch.tensor([3.0, 3.0]))
    tried.append("torch")
if importlib.util.find_spec("jax"):
    import jax.numpy as jnp

    sources.append(jnp.arange(6.0))
    tried.append("JAX")
for source in sources:
    assert scaling.total(source) == 15, source
assert scaling.row_sums(matrix).tolist() == [3, 12]

scaling.scale(matrix, 2)  # the caller's own memory
assert matrix.tolist() == [[0, 2, 4], [6, 8, 10]]

# What dlbridge refuses, and what the function refuses by itself, are one class in Python.
for wrong, met in (
    (np.broadcast_to(np.float32(1), 3), "nobody may write"),
    (np.arange(3), "int64"),
):
    try:
        scaling.scale(wrong, 2)
    except dlbridge.ConversionRefused as refusal:
        assert met in str(refusal), refusal
        assert refusal.fix and met in refusal.reasons[0]
        print(f"{refusal}; {refusal.fix}")
    else:
        raise AssertionError("a refusal was expected")
try:
    scaling.total(np.arange(3))
except TypeError as mismatch:
    print(f"TypeError: {mismatch}")
print(f"one file, tensors of {', '.join(tried)} and others")
