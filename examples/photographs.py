"""From files to training: photographs, SciPy's augmentation, torch, and what it copies on the way.

    PYTHONPATH=build/python python examples/photographs.py

1. Crops of two photographs are written to a file, which is mapped and not read.
2. A DataLoader takes views of the file; SciPy blurs them; `collate` writes each batch once.
3. A small network learns which photograph a crop is from, and NumPy scores it.

The ledger at the end names the lines that copied: those that made a batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from scipy import ndimage
from sklearn.datasets import load_sample_image
from torch.utils.data import DataLoader

import dlbridge

Array = npt.NDArray[Any]

SIZE = 48
CROPS = 400
EPOCHS = 3
chance = np.random.default_rng(1)


def write_crops(path: Path, columns: slice, random: np.random.Generator) -> Array:
    """Crops of the given columns of both photographs to a .npy file; gives which one each is of."""
    photographs = [load_sample_image(name)[:, columns] for name in ("china.jpg", "flower.jpg")]
    labels = random.integers(0, 2, CROPS)
    crops = np.lib.format.open_memmap(path, "w+", "u1", (CROPS, SIZE, SIZE, 3))
    for crop, label in zip(crops, labels, strict=True):
        height, width = photographs[label].shape[:2]
        top, left = random.integers(0, height - SIZE), random.integers(0, width - SIZE)
        crop[...] = photographs[label][top : top + SIZE, left : left + SIZE]
    crops.flush()
    return labels


def augment(image: Array, label: Array) -> tuple[Array, Array]:
    """A little blur, and now and then a mirror: SciPy and NumPy, on a view of the file."""
    blurred = ndimage.gaussian_filter(image, (0.5, 0.5, 0))
    return (blurred[:, ::-1] if chance.random() < 0.5 else blurred), label


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(12, 16, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 2),
    )


def as_input(batch: torch.Tensor) -> torch.Tensor:
    return batch.permute(0, 3, 1, 2).float() / 255


@dlbridge.accepts("numpy")
def accuracy(scores: Array, labels: Array) -> float:
    assert type(scores) is np.ndarray
    return float((scores.argmax(1) == labels).mean())


def train(model: torch.nn.Module, loader: DataLoader[Any]) -> float:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for _ in range(EPOCHS):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(as_input(images)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return loss.item()


def main() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, dlbridge.trace() as log:
        learn, test = Path(folder, "learn.npy"), Path(folder, "test.npy")
        learn_labels = write_crops(learn, slice(0, 420), random)
        test_labels = write_crops(test, slice(420, None), random)
        dataset = dlbridge.ArrayDataset(learn, learn_labels, transform=augment)
        loader = DataLoader(dataset, batch_size=40, shuffle=True, collate_fn=dlbridge.collate)
        model = network()
        loss = train(model, loader)
        unseen = dlbridge.collate(list(dlbridge.ArrayDataset(test)))
        score = accuracy(model(as_input(unseen)), test_labels)
    print(f"loss {loss:.3f}; {score:.1%} of the unseen crops are told apart")
    Console(width=150).print(log)


if __name__ == "__main__":
    main()
