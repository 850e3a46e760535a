"""Calls the extension with tensors of several libraries, and takes its answer back."""

import numpy as np
import row_sums

import dlbridge

matrix = np.arange(12, dtype="f4").reshape(3, 4)
expected = matrix.sum(axis=1)

answer = dlbridge.to_numpy(row_sums.row_sums(matrix))
assert np.array_equal(answer, expected), answer

# Views of every kind: reversed, transposed, read-only, a raw capsule.
assert np.array_equal(dlbridge.to_numpy(row_sums.row_sums(matrix[::-1])), expected[::-1])
assert np.array_equal(dlbridge.to_numpy(row_sums.row_sums(matrix.T)), matrix.T.sum(axis=1))
assert np.array_equal(dlbridge.to_numpy(row_sums.row_sums(dlbridge.capsule(matrix))), expected)

try:
    import torch
except ModuleNotFoundError:
    print("torch is not installed; tried NumPy only")
else:
    weights = torch.ones(3, 4, requires_grad=True)
    assert dlbridge.to_torch(row_sums.row_sums(weights)).tolist() == [4, 4, 4]

# Another type or rank is a TypeError with the signature; what dlbridge refuses arrives as it is.
for wrong in (matrix.astype("f8"), matrix[0], np.array(["text"])):
    try:
        row_sums.row_sums(wrong)
    except (BufferError, TypeError) as refusal:
        print(f"{type(refusal).__name__}: {refusal}")
    else:
        raise AssertionError("a refusal was expected")
print("the extension takes and gives any tensor")
