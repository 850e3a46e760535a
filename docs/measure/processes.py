"""What arrives in another process, by each way there: the table of docs/processes.md.

PYTHONPATH=build/python python docs/measure/processes.py
"""

from __future__ import annotations

import multiprocessing as mp
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as torch_mp

import dlbridge

TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "float32, contiguous": lambda: torch.arange(6.0),
    "int64, transposed": lambda: torch.arange(6).reshape(2, 3).T,
    "a part of 1 MiB": lambda: torch.arange(1 << 18)[3:7],
    "every second, bool": lambda: torch.tensor([True, False, True])[::2],
    "expanded": lambda: torch.arange(2.0).reshape(2, 1).expand(2, 3),
    "0-d, float64": lambda: torch.tensor(3.0, dtype=torch.float64),
    "empty": lambda: torch.empty(0, 3),
    "bfloat16": lambda: torch.arange(3).bfloat16(),
    "float8": lambda: torch.arange(3).to(torch.float8_e4m3fn),
    "complex64": lambda: torch.tensor([1 + 2j]),
    "pending conj bit": lambda: torch.tensor([1 - 2j]).conj(),
    "pending neg bit": lambda: torch.tensor([1 - 2j]).conj().imag,
    "in a graph": lambda: torch.arange(3.0, requires_grad=True) * 2,
}


def told(x: torch.Tensor) -> tuple[Any, ...]:
    return x.tolist(), str(x.dtype), tuple(x.shape)


def answer(incoming: Any, outgoing: Any) -> None:
    """In the child: what it sees of each, until there is nothing more."""
    while True:
        try:
            x = incoming.get()
            if x is None:
                return
            outgoing.put(told(x if isinstance(x, torch.Tensor) else dlbridge.to_torch(x)))
        except Exception as error:
            outgoing.put(type(error).__name__)


def answer_socket(there: socket.socket, outgoing: Any) -> None:
    while True:
        try:
            outgoing.put(told(dlbridge.recv(there, "torch")))
        except EOFError:
            return


def outcome(seen: Any, x: torch.Tensor) -> str:
    wanted = told(x.detach().resolve_conj().resolve_neg())
    return "right" if seen == wanted else seen if isinstance(seen, str) else "**wrong values**"


def by_queue(context: Any, wrapped: Callable[[Any], Any]) -> list[str]:
    there, back = context.Queue(), context.Queue()
    child = context.Process(target=answer, args=(there, back), daemon=True)
    child.start()
    seen = []
    for make in TENSORS.values():
        x = make()
        try:
            put: Any = wrapped(x)
            if not isinstance(put, dlbridge.Shared) and put.requires_grad and not put.is_leaf:
                raise RuntimeError("refused")  # in the queue's thread, which only prints it
            there.put(put)
            seen.append(outcome(back.get(timeout=60), x))
        except RuntimeError:
            seen.append("refused")
    there.put(None)
    child.join(10)
    return seen


def by_socket() -> list[str]:
    context = mp.get_context("fork")
    here, there = socket.socketpair()
    back = context.Queue()
    child = context.Process(target=answer_socket, args=(there, back), daemon=True)
    child.start()
    there.close()
    seen = []
    for make in TENSORS.values():
        x = make()
        dlbridge.send(here, x)
        seen.append(outcome(back.get(timeout=60), x))
    here.close()
    child.join(10)
    return seen


def by_pickle() -> list[str]:
    seen = []
    for make in TENSORS.values():
        x = make()
        data, buffers = dlbridge.dumps(x)
        seen.append(outcome(told(dlbridge.loads(data, [bytes(each) for each in buffers])), x))
    return seen


def main() -> None:
    ways = {
        "`send`, `recv`": by_socket(),
        **{
            f"`share`, queue, {method}": by_queue(mp.get_context(method), dlbridge.share)
            for method in ("fork", "spawn", "forkserver")
        },
        "`dumps`, `loads`": by_pickle(),
        "torch's queue, fork": by_queue(torch_mp.get_context("fork"), lambda x: x),
        "torch's queue, spawn": by_queue(torch_mp.get_context("spawn"), lambda x: x),
    }
    print("| a torch tensor | " + " | ".join(ways) + " |")
    print("|---" * (1 + len(ways)) + "|")
    for row, name in enumerate(TENSORS):
        print(f"| {name} | " + " | ".join(each[row] for each in ways.values()) + " |")


if __name__ == "__main__":
    main()
