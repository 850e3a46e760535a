"""Handwritten digits across SciPy, NumPy and torch: what crosses, and what it costs.

    make demo

1. SciPy straightens and enlarges the images; torch trains on the same memory.
2. In the middle of torch's training loop, SciPy turns and shifts every batch.
3. Predictions and a feature map come back out of the graph, and NumPy scores them.

At the end the ledger says which lines made something cross, and what that copied.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy import ndimage
from sklearn.datasets import load_digits

import dlbridge

Array = npt.NDArray[Any]

EPOCHS = 16
BATCH = 64
PICTURE = Path("demo-output/digits.png")


# --- 1. preparing the images with SciPy ----------------------------------------------------------


def deskew(image: Array) -> Array:
    """Shears a digit so that it stands upright, and moves its centre of mass to the middle."""
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = image.sum()
    row, col = (rows * image).sum() / mass, (cols * image).sum() / mass
    slant = ((rows - row) * (cols - col) * image).sum() / ((rows - row) ** 2 * image).sum()
    # affine_transform asks where each pixel of the result comes from
    shear = np.array([[1.0, 0.0], [slant, 1.0]])
    middle = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, shear, np.array([row, col]) - shear @ middle, order=1)


def prepare(images: Array) -> Array:
    """8 × 8 scans to upright 20 × 20 images between 0 and 1, with a margin and a channel axis."""
    framed = np.pad(images / images.max(), ((0, 0), (1, 1), (1, 1)))
    large = ndimage.zoom(framed, (1, 2, 2), order=3, grid_mode=True, mode="grid-constant")
    upright = np.stack([deskew(image) for image in large])
    return np.clip(upright, 0, 1, dtype=np.float32)[:, np.newaxis]


def edge_kernels() -> Array:
    """Derivatives of a Gaussian in four directions, as SciPy's convolution wants them."""
    spot = np.zeros((5, 5), np.float32)
    spot[2, 2] = 1
    down = ndimage.gaussian_filter(spot, 1.0, order=(1, 0))
    right = ndimage.gaussian_filter(spot, 1.0, order=(0, 1))
    kernels = np.stack([down, right, (down + right) / 2**0.5, (down - right) / 2**0.5])
    return 6 * kernels[:, np.newaxis]


# --- 2. a small network, and SciPy in its data path ----------------------------------------------


class Network(torch.nn.Module):
    """Four fixed edge filters beside learned ones, two more layers, ten scores."""

    edges: torch.Tensor

    def __init__(self, edges: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("edges", edges)
        self.first = torch.nn.Conv2d(1, 12, 5, padding=2)
        self.second = torch.nn.Conv2d(16, 32, 3, padding=1)
        self.scores = torch.nn.Linear(32 * 5 * 5, 10)
        self.features = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        edges = torch.nn.functional.conv2d(images, self.edges, padding=2)
        self.features = torch.relu(torch.cat([edges, self.first(images)], 1))
        x = torch.nn.functional.max_pool2d(self.features, 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        x = torch.nn.functional.dropout(x.flatten(1), 0.3, self.training)
        out: torch.Tensor = self.scores(x)
        return out


def jitter(batch: Array, random: np.random.Generator) -> Array:
    """Turns, scales and shifts each image a little: SciPy, on the memory of a torch batch."""
    result = np.empty_like(batch)
    middle = (np.array(batch.shape[-2:]) - 1) / 2
    angles = random.normal(0, 0.12, len(batch))
    scales = random.normal(1, 0.06, len(batch))
    shifts = random.normal(0, 0.6, (len(batch), 2))
    for i, (angle, scale, shift) in enumerate(zip(angles, scales, shifts, strict=True)):
        sin, cos = np.sin(angle) * scale, np.cos(angle) * scale
        turn = np.array([[cos, -sin], [sin, cos]])
        offset = middle - turn @ middle + shift
        ndimage.affine_transform(batch[i, 0], turn, offset, output=result[i, 0], order=1)
    return result


def train(
    network: Network,
    images: torch.Tensor,
    labels: torch.Tensor,
    console: Console,
) -> list[float]:
    random = np.random.default_rng(1)
    steps = -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=EPOCHS * steps)
    columns = (
        TextColumn("training"),
        BarColumn(40),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    losses = []
    # In a log there is no bar: one line for every quarter instead.
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=EPOCHS * steps, loss=float("nan"))
        for epoch in range(EPOCHS):
            total = 0.0
            for index in torch.randperm(len(images)).split(BATCH):
                batch = dlbridge.to_numpy(images[index])
                turned = dlbridge.to_torch(jitter(batch, random))
                loss = torch.nn.functional.cross_entropy(network(turned), labels[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item() * len(index)
                progress.update(task, advance=1, loss=loss.item())
            losses.append(total / len(images))
            if not console.is_terminal and (epoch + 1) % max(EPOCHS // 4, 1) == 0:
                console.print(f"  epoch {epoch + 1:2} of {EPOCHS}: loss {losses[-1]:.3f}")
    return losses


# --- 3. scoring in NumPy, and a picture ----------------------------------------------------------


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def draw(
    scans: Array,
    images: Array,
    labels: Array,
    chance: Array,
    confusion: Array,
    features: Array,
    losses: list[float],
) -> None:
    ink, right, wrong, faint, line = "#1f2933", "#2f6f9f", "#d1495b", "#7b8794", "#d5dbe1"
    matplotlib.rcParams.update({"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": line})
    left, middle, top, bottom = 0.035, 0.66, 0.845, 0.36
    figure = Figure(figsize=(15, 10.5), facecolor="white")

    def heading(x: float, y: float, text: str) -> None:
        figure.text(x, y, text, size=12.5, weight="bold")

    guess = chance.argmax(1)
    missed = guess != labels
    figure.text(left, 0.95, "Handwritten digits: SciPy → torch → NumPy", size=21, weight="bold")
    summary = f"{len(labels)} digits that the network never saw: {1 - missed.mean():.1%} right, "
    figure.text(left, 0.921, summary + f"{missed.sum()} wrong", size=12.5, color=faint)

    heading(left, 0.88, "Predictions: the wrong ones in red, then the least certain")
    order = np.lexsort((chance.max(1), ~missed))
    rows, columns = 5, 10
    grid = figure.add_gridspec(
        rows, columns, left=left, right=0.61, top=top, bottom=bottom, hspace=0.4
    )
    for k, i in enumerate(order[: rows * columns]):
        axes = figure.add_subplot(grid[k // columns, k % columns])
        axes.imshow(images[i, 0], cmap="gray_r", interpolation="bicubic")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=wrong if missed[i] else line, linewidth=2.5 if missed[i] else 0.8)
        text = f"{guess[i]}, not {labels[i]}" if missed[i] else f"{guess[i]}"
        axes.set_title(text, size=11, color=wrong if missed[i] else right, weight="bold", pad=4)
        axes.set_xlabel(f"{chance[i].max():.0%}", size=8, color=faint, labelpad=2)

    heading(middle, 0.88, "Confusion matrix")
    axes = figure.add_axes((middle, bottom + 0.01, 0.32, top - bottom - 0.01))
    shade = np.log1p(confusion)
    axes.imshow(shade, cmap="Blues", vmax=shade.max() * 1.15, aspect="auto")
    for row, column in np.argwhere(confusion):
        colour = "white" if row == column else wrong
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "size": 11,
            "weight": "bold",
            "color": colour,
        }
        axes.text(column, row, str(confusion[row, column]), **style)
        if row != column:
            axes.add_patch(
                Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, ec=wrong, lw=2)
            )
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="written")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

    # The hardest digit on its way: the scan, made upright, and what the first layer sees in it.
    shown = order[0]
    heading(left, 0.27, f"A {labels[shown]} on its way, taken for a {guess[shown]}")
    for k, (title, image) in enumerate([("scan", scans[shown]), ("after SciPy", images[shown, 0])]):
        axes = figure.add_axes((left + 0.108 * k, 0.075, 0.1, 0.1 * 15 / 10.5))
        axes.imshow(image, cmap="gray_r", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, size=10, color=faint)
    heading(0.285, 0.27, "Its feature map, out of the middle of the graph")
    maps = features[shown]
    grid = figure.add_gridspec(
        2, 8, left=0.285, right=0.61, top=0.24, bottom=0.07, wspace=0.06, hspace=0.06
    )
    for k, channel in enumerate(maps):
        axes = figure.add_subplot(grid[k // 8, k % 8])
        axes.imshow(channel, cmap="magma", vmin=0, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
    figure.text(
        0.285, 0.045, "four fixed edge filters, then twelve that were learned", size=10, color=faint
    )

    heading(middle, 0.27, "Training loss, on batches that SciPy turned")
    axes = figure.add_axes((middle, 0.075, 0.32, 0.165))
    axes.plot(range(1, len(losses) + 1), losses, color=right, lw=2, marker="o", ms=4)
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.tick_params(color=line, labelcolor=faint)
    axes.grid(axis="y", color="#eceff2")
    axes.spines[["top", "right"]].set_visible(False)

    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> int:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)  # a log has no width of its own
    torch.manual_seed(0)
    torch.set_num_threads(1)  # layers this small lose more to waiting for each other than they gain

    digits = load_digits()
    scans = digits.images.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(scans))
    learn, test = order[len(order) // 4 :], order[: len(order) // 4]
    images = prepare(scans)
    console.print(f"{len(learn)} digits to learn from, {len(test)} to be tested on")

    started = time.perf_counter()
    with dlbridge.trace() as log:
        learn_images = dlbridge.to_torch(images[learn])
        learn_labels = dlbridge.to_torch(digits.target[learn])
        # SciPy's convolution runs a kernel backwards, torch's forwards: the flip is a negative
        # stride.
        edges = dlbridge.to_torch(edge_kernels()[..., ::-1, ::-1])
        network = Network(edges)
        losses = train(network, learn_images, learn_labels, console)
        console.print(f"trained in {time.perf_counter() - started:.1f} s")

        # No no_grad, no detach, no cpu: the scores are still in the graph, the policy takes care
        # of it.
        network.eval()
        scores = network(dlbridge.to_torch(images[test]))
        chance = softmax(dlbridge.to_numpy(scores))
        features = dlbridge.to_numpy(network.features)
    labels = digits.target[test]
    guess = chance.argmax(1)
    confusion = np.zeros((10, 10), np.int64)
    np.add.at(confusion, (labels, guess), 1)
    right = int(np.trace(confusion))
    draw(scans[test], images[test], labels, chance, confusion, features, losses)

    console.print()
    console.print(log)
    console.print()
    console.print(f"picture:  {PICTURE}")
    console.print(f"accuracy: [bold]{right / len(test):.1%}[/], {right} of {len(test)}")
    return 0 if right / len(test) >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
