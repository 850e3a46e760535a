"""Runs under callgrind: each crossing many times, with only that counted."""

import ctypes
import sys
from collections.abc import Callable

import numpy as np
import torch

import dlbridge

CALLS = 500
CROSSINGS = {
    "to_numpy": ("to_numpy(t)", "to_numpy(g)", "to_numpy(m)"),
    "to_torch": ("to_torch(a)",),
    "from_dlpack": ("from_dlpack(t)", "from_dlpack(a)"),
}


def main(switch: ctypes.CDLL) -> None:
    tensor, array = torch.ones(4, 8), np.ones((4, 8), "f4")
    known = {name: getattr(dlbridge, name) for name in CROSSINGS}
    known |= {"t": tensor, "a": array, "g": torch.ones(4, 8, requires_grad=True)}
    known["m"] = dlbridge.from_dlpack(array, copy=True)
    for road in ("linked", "portable"):
        dlbridge._core.torch_road(road)
        for call in (call for calls in CROSSINGS.values() for call in calls):
            source = f"def run(count):\n    for _ in range(count):\n        {call}\n"
            made: dict[str, Callable[[int], None]] = {}
            exec(source, known, made)
            made["run"](50)
            switch.start()
            made["run"](CALLS)
            switch.stop(f"{road} {call}".encode())


if __name__ == "__main__":
    main(ctypes.CDLL(sys.argv[1]))
