"""Looking at features in the middle of a graph, while the network learns.

    PYTHONPATH=build/python python examples/features.py

A hook takes what the first layer computes, which is in autograd's graph, to NumPy: a read-only
view, so that looking cannot change the gradient. SciPy counts in how many pieces each filter sees a
digit; at the end the features are drawn. A block of `no_copies()` around it all makes sure that
looking is free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from scipy import ndimage
from sklearn.datasets import load_digits

import dlbridge

Array = npt.NDArray[Any]

STEPS = 60
BATCH = 64
PICTURE = Path("demo-output/features.png")


class Watched:
    """A hook that looks at a layer's output on every step."""

    def __init__(self) -> None:
        self.alive: list[float] = []
        self.features: Array = np.empty(0)

    def __call__(self, layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        features = dlbridge.to_numpy(output)
        assert output.grad_fn is not None and not features.flags.writeable
        self.alive.append(float((features > 0).mean()))
        self.features = features


def strokes(features: Array) -> Array:
    """For each filter: in how many pieces it sees an image, on average."""
    pieces = [[ndimage.label(map > map.mean())[1] for map in image] for image in features]
    return np.mean(pieces, axis=0)


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(12, 16, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 10),
    )
    watched = Watched()
    model[1].register_forward_hook(watched)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with dlbridge.trace() as log, dlbridge.no_copies():
        inputs = dlbridge.to_torch(images.reshape(-1, 1, 8, 8)).float() / 16
        targets = dlbridge.to_torch(labels)
        for _ in range(STEPS):
            index = torch.randint(len(inputs), (BATCH,))
            loss = torch.nn.functional.cross_entropy(model(inputs[index]), targets[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seen = strokes(watched.features)
    print(f"loss {loss.item():.3f}; active at first {watched.alive[0]:.0%}, now ", end="")
    print(f"{watched.alive[-1]:.0%}; pieces by filter {np.round(seen, 1).tolist()}")
    Console(width=150).print(log)
    PICTURE.parent.mkdir(exist_ok=True)
    maps = watched.features[:4].reshape(-1, *watched.features.shape[2:])
    figure = Figure(figsize=(12, 12 * len(maps) / 144), layout="constrained")
    for axes, features in zip(figure.subplots(len(maps) // 12, 12).flat, maps, strict=False):
        axes.imshow(features, cmap="gray")
        axes.set_axis_off()
    figure.savefig(PICTURE)
    print(f"drawn to {PICTURE}")


if __name__ == "__main__":
    main()
