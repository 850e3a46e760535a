"""Takes images of a C++ library to NumPy and back, by its row in dlbridge's registry."""

import grid
import numpy as np

import dlbridge

pixels = np.arange(12, dtype="u1").reshape(3, 4)

image = dlbridge.to(pixels, "grid")
assert type(image) is grid.Image and image.size == (3, 4)
pixels[0, 0] = 99  # one memory
view = dlbridge.to_numpy(image)
assert view[0, 0] == 99 and np.shares_memory(view, pixels)
assert dlbridge.to(image, grid) is image

# What an image cannot be is copied, or refused with a reason.
print(dlbridge.explain(pixels.T, grid))
assert dlbridge.to(pixels.T, "grid").size == (4, 3)
for wrong in (pixels.astype("f4"), pixels[0], pixels[None]):
    try:
        dlbridge.to(wrong, "grid")
    except dlbridge.ConversionRefused as refused:
        print(refused)
    else:
        raise AssertionError("a refusal was expected")

before = dlbridge._core.live_managed_tensors()
del image, view
assert dlbridge._core.live_managed_tensors() < before
print("images cross in both directions")
