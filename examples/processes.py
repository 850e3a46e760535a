"""Three processes: one prepares digits in NumPy, one trains on them in torch, one draws.

    PYTHONPATH=build/python python examples/processes.py

The producer writes each batch into a block that the trainer maps; the trainer sends what the
network says of it on to the viewer, which gets it in NumPy. Each tells at its end what its ledger
has: the labels are copied once, into the block of their batch, and the predictions once, when they
leave the graph. Nothing is copied on the way, and the pixels not at all.
"""

from __future__ import annotations

import multiprocessing as mp
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import dlbridge

STEPS = 80
BATCH = 64
PICTURE = Path("demo-output/processes.png")


def told(who: str, ledger: dlbridge.Ledger) -> None:
    copied = sum(each.bytes_copied for each in ledger)
    print(f"{who}: {len(ledger)} crossings, {copied:,} bytes copied", flush=True)


def produce(batches: Any) -> None:
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0)
    with dlbridge.trace() as ledger:
        for _ in range(STEPS):
            rows = chosen.integers(0, len(pixels), BATCH)
            room = dlbridge.shared_empty((BATCH, 64), "float32")
            np.divide(pixels[rows], 16, out=dlbridge.to_numpy(room), casting="same_kind")
            batches.put(dlbridge.share({"pixels": room, "labels": labels[rows]}))
        batches.put(None)
    told("producer", ledger)


def train(batches: Any, results: Any) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    with dlbridge.trace() as ledger:
        while (shared := batches.get()) is not None:
            batch = dlbridge.to_torch(shared)
            said = network(batch["pixels"])
            loss = torch.nn.functional.cross_entropy(said, batch["labels"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            results.put(
                dlbridge.share({"said": said, "loss": loss, "pixels": shared.tree["pixels"]})
            )
        results.put(None)
    told("trainer", ledger)


def view(results: Any) -> None:
    losses: list[float] = []
    last: dict[str, Any] = {}
    with dlbridge.trace() as ledger:
        while (shared := results.get()) is not None:
            last = dlbridge.to_numpy(shared)
            losses.append(float(last["loss"]))
    figure = Figure(figsize=(9, 3), layout="constrained")
    curve, *digits = figure.subplots(1, 5)
    curve.plot(losses)
    curve.set_title("loss")
    for axes, pixels, said in zip(digits, last["pixels"], last["said"], strict=False):
        axes.imshow(pixels.reshape(8, 8), cmap="gray_r")
        axes.set_title(f"it says {said.argmax()}")
        axes.set_axis_off()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)
    told("viewer", ledger)
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}; drawn: {PICTURE}", flush=True)


def main() -> None:
    context = mp.get_context("spawn")
    batches, results = context.Queue(4), context.Queue(4)
    jobs = ((produce, (batches,)), (train, (batches, results)), (view, (results,)))
    children = [context.Process(target=work, args=arguments) for work, arguments in jobs]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise SystemExit("one of the three processes failed")


if __name__ == "__main__":
    main()
