"""SciPy inside of a torch model, with a gradient written by hand: a photograph is made sharp again.

    PYTHONPATH=build/python python examples/deblur.py

`blur` is SciPy's Gaussian filter as a function of tensors. Its gradient is SciPy's too, and checked
against differences before it is used. Torch then looks for the image which, blurred, is the blurred
photograph. Every tensor crosses as a view: the ledger shows no copy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from scipy import ndimage
from sklearn.datasets import load_sample_image

import dlbridge

Array = npt.NDArray[Any]

SIGMA = 2.0
STEPS = 120
PICTURE = Path("demo-output/deblur.png")


@dlbridge.numpy_function(returns="image")
def blur(image: Array, sigma: float) -> Any:
    return ndimage.gaussian_filter(image, sigma)


@blur.backward
def blur_gradient(context: Any, gradient: Array) -> tuple[Any, None]:
    # Mirrored at the edges, the filter is a symmetric matrix: it is its own transpose.
    _, sigma = context.inputs
    return ndimage.gaussian_filter(gradient, sigma), None


def roughness(image: torch.Tensor) -> torch.Tensor:
    down, right = image.diff(dim=0), image.diff(dim=1)
    return (down[:, 1:].square() + right[1:].square() + 1e-6).sqrt().mean()


def sharpen(blurred: torch.Tensor) -> torch.Tensor:
    image = blurred.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.02)
    for _ in range(STEPS):
        loss = (blur(image, SIGMA) - blurred).square().mean() + 2e-5 * roughness(image)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return image


@dlbridge.accepts("numpy")
def decibels(image: Array, truth: Array) -> float:
    """The ratio of signal and noise."""
    return -10 * math.log10(np.square(image - truth).mean())


def main() -> None:
    crop = load_sample_image("china.jpg")[180:340, 180:400]
    truth = torch.from_numpy(crop.mean(2) / 255)
    checked = dlbridge.gradcheck(blur, np.random.default_rng(0).random((6, 7)), SIGMA)
    print(f"the gradient of blur() agrees with differences of its values: {checked}")
    blurred = blur(truth, SIGMA)
    with dlbridge.trace() as log:
        sharp = sharpen(blurred)
        before, after = decibels(blurred, truth), decibels(sharp, truth)
    print(f"blurred: {before:.1f} dB; made sharp again: {after:.1f} dB")
    Console(width=150).print(log)
    PICTURE.parent.mkdir(exist_ok=True)
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    titles = ["photograph", "blurred", "sharp"]
    for axes, title, image in zip(
        figure.subplots(1, 3), titles, (truth, blurred, sharp), strict=True
    ):
        axes.imshow(dlbridge.to_numpy(image), cmap="gray")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(PICTURE)
    print(f"drawn to {PICTURE}")


if __name__ == "__main__":
    main()
