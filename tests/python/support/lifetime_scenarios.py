"""Run in a child process: what happens to a view when its source changes under it (law 3).

    python lifetime_scenarios.py ROAD SCENARIO...

Every scenario says "begin NAME" and then "end|NAME|OUTCOME". The outcome is "kept" (the view still
has its values), "raised" (the operation refused to break it) or "BROKEN ...". A crash shows as a
begin without an end.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import torch.multiprocessing  # registers the reductions that send a tensor through a queue

import dlbridge

# Small ones are reused at once by malloc, large ones are unmapped: reading them is a crash.
SIZES = {"small": 64, "large": 1 << 19}


def churn(count: int) -> None:
    """Overwrites what has been freed, if anything has."""
    gc.collect()
    rounds = 8 if count < 10_000 else 3
    kept = [np.full(count, -1.0, "f4") for _ in range(rounds)]
    kept_too = [torch.full((count,), -2.0) for _ in range(rounds)]
    del kept, kept_too


def make(count: int) -> torch.Tensor:
    return torch.arange(float(count)) % 251 + 1


def by_numpy(tensor: torch.Tensor) -> Any:
    return dlbridge.to_numpy(tensor)


def by_managed(tensor: torch.Tensor) -> Any:
    return dlbridge.from_dlpack(tensor)


class Capsuled:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.capsule = dlbridge.capsule(tensor)


def by_capsule(tensor: torch.Tensor) -> Any:
    return Capsuled(tensor)


def by_numpy_of_detached(tensor: torch.Tensor) -> Any:
    return dlbridge.to_numpy(tensor.detach().requires_grad_())


def read(view: Any) -> np.ndarray:
    if isinstance(view, np.ndarray):
        return view.copy()
    if isinstance(view, Capsuled):
        return dlbridge.to_numpy(view.capsule, copy=True)
    return dlbridge.to_numpy(view, copy=True)


DOORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "to_numpy": by_numpy,
    "from_dlpack": by_managed,
    "capsule": by_capsule,
    "to_numpy of a leaf": by_numpy_of_detached,
}

Change = Callable[[torch.Tensor], object]


def set_data(tensor: torch.Tensor) -> None:
    tensor.data = torch.zeros(3)


def write_over(clone: torch.Tensor, tensor: torch.Tensor) -> None:
    """The write moves the tensor to memory of its own; then the clone has the old one alone."""
    tensor.add_(1)
    del clone


def through_queue(tensor: torch.Tensor) -> None:
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    queue.put(tensor)
    del tensor
    queue.get().fill_(-3.0)


def forget(_: torch.Tensor) -> None:
    """The caller drops its tensor in any case; here nothing else happens."""


def module_of(tensor: torch.Tensor) -> torch.nn.Module:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(tensor.detach(), requires_grad=False)
    return module


CHANGES: dict[str, Change] = {
    "del": forget,
    "set_": lambda t: t.set_(),
    "set_ to another": lambda t: t.set_(torch.zeros(5)),
    "data =": set_data,
    "resize_ to more": lambda t: t.resize_(t.numel() * 4),
    "resize_ to 0": lambda t: t.resize_(0),
    "storage resize_ to 0": lambda t: t.untyped_storage().resize_(0),
    "storage resize_ to more": lambda t: t.untyped_storage().resize_(t.numel() * 64),
    "t_": lambda t: t.t_(),
    "unsqueeze_": lambda t: t.unsqueeze_(0).unsqueeze_(0).unsqueeze_(0),
    "transpose_ and squeeze_": lambda t: t.transpose_(0, 1).squeeze_(),
    "as_strided_": lambda t: t.as_strided_((2,), (1,)),
    "share_memory_": lambda t: t.share_memory_(),
    "share_memory_ of a view": lambda t: t.view(-1)[3:5].share_memory_(),
    "share_memory_ of the storage": lambda t: t.untyped_storage().share_memory_(),
    "sent through a queue": lambda t: ForkingPickler.dumps(t),
    "view sent through a queue": lambda t: ForkingPickler.dumps(t[:1]),
    "put on a queue": lambda t: through_queue(t),
    "copy-on-write clone": lambda t: torch._lazy_clone(t),
    "copy-on-write clone, then a write": lambda t: write_over(torch._lazy_clone(t), t),
    "copy-on-write clone by its method": lambda t: write_over(t._lazy_clone(), t),
    "copy-on-write clone of a view": lambda t: write_over(torch._lazy_clone(t.view(-1)[2:]), t),
    "swap_tensors": lambda t: torch.utils.swap_tensors(t, torch.zeros(3)),
}

# Here the view is of the module's weight, and the module is what changes.
MODULE_CHANGES: dict[str, Callable[[torch.nn.Module], object]] = {
    "Module.to": lambda m: m.to(torch.float64),
    "Module.double": lambda m: m.double(),
    "Module.share_memory": lambda m: m.share_memory(),
    "Module.to_empty": lambda m: m.to_empty(device="cpu"),
    "Module.load_state_dict": lambda m: m.load_state_dict({"weight": torch.zeros(3)}, assign=True),
}


def scenario_names() -> list[str]:
    changes = [*CHANGES, *MODULE_CHANGES]
    return [f"{door}/{change}/{size}" for size in SIZES for door in DOORS for change in changes]


def run(name: str) -> str:
    door, change, size = name.split("/")
    count = SIZES[size]
    tensor: Any = make(count).reshape(2, -1)
    expected = (
        tensor.numpy().copy()
    )  # by torch: a numpy() would mark the storage; this copies first
    tensor = tensor.clone()
    module = None
    if change in MODULE_CHANGES:
        module = module_of(tensor)
        tensor = module.weight
    view = DOORS[door](tensor)
    outcome = "kept"
    try:
        if module is not None:
            del tensor
            MODULE_CHANGES[change](module)
        else:
            CHANGES[change](tensor)
            del tensor
    except (RuntimeError, BufferError) as refusal:
        outcome = "raised"
        del refusal
    churn(count)
    found = read(view)
    if found.shape != expected.shape:
        return f"BROKEN shape {found.shape}"
    if not np.array_equal(found, expected):
        return f"BROKEN values {found.reshape(-1)[:4]}"
    return outcome


if __name__ == "__main__":
    dlbridge._core.torch_road(sys.argv[1])
    torch.set_num_threads(1)
    gc.freeze()  # collections then look at the scenarios only
    for scenario in sys.argv[2:]:
        print("begin", scenario, flush=True)
        try:
            result = run(scenario)
        except Exception as error:  # the parent's report needs it whatever it is
            result = f"BROKEN {type(error).__name__}: {error}"
        print("end", scenario, result.replace("\n", " "), sep="|", flush=True)
