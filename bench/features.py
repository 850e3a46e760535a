"""What the ledger, borrow, functions and dumps cost, each held against the way without them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from measure import Line
from scipy import ndimage

import dlbridge


def pair(
    name: str,
    against: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    goal: float | None = None,
    calls: int = 200,
) -> Line:
    return Line("features", name, against, ours, peer, goal, calls)


def ledger() -> list[Line]:
    tensor, array = torch.ones(4, 8), np.ones((4, 8), "f4")
    to_numpy, to_torch = dlbridge.to_numpy, dlbridge.to_torch

    def in_block(block: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            with block():
                for _ in range(100):
                    to_numpy(tensor)

        return run

    plain = in_block(nullcontext)
    return [
        pair("100 x to_numpy(t) in trace()", "no block", in_block(dlbridge.trace), plain, 6, 4),
        pair("... in no_copies()", "no block", in_block(dlbridge.no_copies), plain, 1.5, 20),
        pair(
            '... in policy("strict")',
            "no block",
            in_block(lambda: dlbridge.policy("strict")),
            plain,
            1.5,
            20,
        ),
        Line(
            "features",
            "stats()",
            "to_torch(a)",
            dlbridge.stats,
            lambda: to_torch(array),
            calls=200,
            most=1e-6,
        ),
    ]


def borrowing() -> list[Line]:
    tensor = torch.ones(4, 8)

    def borrowed() -> None:
        with dlbridge.borrow(tensor) as array:
            array[0, 0] = 1

    def bare() -> None:
        tensor.numpy()[0, 0] = 1

    def in_place() -> None:
        tensor[0, 0] = 1

    return [
        pair("borrow(t), one write", "t.numpy(), one write", borrowed, bare, 3),
        pair("borrow(t), one write", "t[0, 0] = 1", borrowed, in_place),
    ]


def functions() -> list[Line]:
    @dlbridge.numpy_function
    def ours(x: Any) -> Any:
        return ndimage.gaussian_filter(x, 1.0)

    @ours.backward
    def _(context: Any, gradient: Any) -> Any:
        return ndimage.gaussian_filter(gradient, 1.0)

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return torch.from_numpy(ndimage.gaussian_filter(x.detach().numpy(), 1.0))

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return torch.from_numpy(ndimage.gaussian_filter(gradient.numpy(), 1.0))

    pairs = []
    for size in (8, 224):
        x = torch.rand(size, size, requires_grad=True)
        pairs.append(
            pair(
                f"numpy_function, forward and backward, {size} x {size}",
                "an autograd.Function by hand",
                lambda x=x: ours(x).sum().backward(),  # type: ignore[misc]
                lambda x=x: ByHand.apply(x).sum().backward(),  # type: ignore[misc]
                1.15,
                20 if size == 8 else 2,
            )
        )
    accepting = dlbridge.accepts("numpy")(np.add)
    a, b = torch.ones(4, 8), torch.ones(4, 8)
    pairs.append(
        pair(
            'accepts("numpy"), np.add',
            "numpy() and from_numpy by hand",
            lambda: accepting(a, b),
            lambda: torch.from_numpy(np.add(a.numpy(), b.numpy())),
            2,
        )
    )
    return pairs


def pickling() -> list[Line]:
    def ours(x: Any) -> Any:
        return dlbridge.loads(*dlbridge.dumps(x))

    def by_pickle(x: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(x, 5, buffer_callback=buffers.append)
        return pickle.loads(data, buffers=buffers)

    sent: dict[str, tuple[Any, float | None, int]] = {
        "torch, 1 KiB": (torch.ones(256), 0.15, 20),
        "torch, 1 MiB": (torch.ones(1 << 18), 0.04, 20),
        "a dict of 1,000 torch tensors": ({str(i): torch.ones(256) for i in range(1000)}, 0.07, 1),
        "NumPy, 1 KiB": (np.ones(128), 1.1, 200),
        "a dict of 1,000 arrays": ({str(i): np.ones(128) for i in range(1000)}, 1.1, 4),
        "NumPy, 8 MiB transposed": (np.ones((1024, 1024)).T[::-1], None, 1),
    }
    return [
        pair(
            f"dumps + loads: {name}",
            "pickle 5, out of band",
            lambda x=x: ours(x),  # type: ignore[misc]
            lambda x=x: by_pickle(x),  # type: ignore[misc]
            goal,
            calls,
        )
        for name, (x, goal, calls) in sent.items()
    ]


def lines() -> list[Line]:
    return [*ledger(), *borrowing(), *functions(), *pickling()]
