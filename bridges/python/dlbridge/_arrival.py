"""Arrays on their way from a device, and pinned memory for them to arrive in."""

from __future__ import annotations

import operator
from _thread import allocate_lock  # importing threading takes longer
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from dlbridge import _core


class PendingArray:
    """What ``to_numpy(x, async_=True)`` returns: an array whose memory may still be on its way.

    ``await`` it in a coroutine, or call ``result()``; either gives the array, as often as wanted.
    The copy is part of the work of its source's stream: the source may be dropped, or written to on
    that stream, as soon as the call returns. A source that came by ``__dlpack__`` was ordered for a
    stream of ours, so its library must not write to it before the array is there. Dropping this
    object waits for nothing.
    """

    __slots__ = ("_array", "_arriving", "_lock")

    def __init__(self, arriving: Any, array: Any) -> None:
        self._arriving = arriving
        self._array = array
        self._lock = allocate_lock()

    def done(self) -> bool:
        """Whether the array is there; waits for nothing."""
        with self._lock:
            return self._arriving is None or bool(self._arriving.done())

    def result(self) -> np.ndarray[Any, Any]:
        """The array, once it is there. Raises what the device's work failed with."""
        with self._lock:
            if self._arriving is not None:
                arriving, self._arriving = self._arriving, None
                self._array = arriving.take()
            if self._array is None:
                raise RuntimeError("the copy of this array failed before")
            array: np.ndarray[Any, Any] = self._array
            return array

    def __await__(self) -> Generator[Any, None, np.ndarray[Any, Any]]:
        if not self.done():
            import asyncio  # whoever awaits has it

            # A thread waits, which costs less than asking again and again.
            loop = asyncio.get_running_loop()
            return (yield from loop.run_in_executor(None, self.result).__await__())
        return self.result()

    def __repr__(self) -> str:
        state = "there" if self.done() else "on its way"
        return f"<dlbridge.PendingArray, {state}>"


def pinned_empty(
    shape: int | Sequence[int], dtype: Any = "float32", *, device: str = "cuda"
) -> np.ndarray[Any, Any]:
    """A new array in pinned host memory, which a device reads and writes by itself.

    Not initialised. For ``to_numpy(x, out=...)`` and as the source of ``to_torch(a, device=...)``:
    such copies need no staging. The memory comes from a pool and goes back to it. Without a runtime
    for ``device`` it is ordinary memory, which works the same, and slower.
    """
    sizes = tuple(map(operator.index, shape if isinstance(shape, Sequence) else (shape,)))
    if any(size < 0 for size in sizes):
        raise ValueError(f"pinned_empty() needs sizes of 0 or more, not {sizes}")
    pinned = _core.pinned(dtype, sizes, _core.device_type(device))
    return _core.to_numpy(pinned, policy="host")  # a block's policy might copy it elsewhere
