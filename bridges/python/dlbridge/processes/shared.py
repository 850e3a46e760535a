"""A tree of tensors in memory that other processes can map: what is sent, and what arrives."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any, Literal, TypeAlias

from dlbridge._core import ManagedTensor

Mode: TypeAlias = Literal["read", "give", "write"]


class Shared:
    """A tree of tensors in blocks of memory that other processes can map.

    ``to_numpy``, ``to_torch`` and ``to`` make a tree of arrays of it, as of the tree that it was
    made of: views. It goes to children by ``multiprocessing`` (a queue, a pipe, a pool, arguments)
    and ``joblib``, and to any other process of the same user by ``send``; its memory stays where it
    is, and comes back to be used again when the last of both sides has let go of it.

    ``mode`` says who may write once others have it: "read", the one who shared it alone, which the
    kernel sees to; "give", whoever gets it, and there is one; "write", all of them.
    """

    __slots__ = ("__weakref__", "_libraries", "_note", "_tensors", "_tree", "mode")

    mode: Mode
    _tree: Any
    _tensors: list[ManagedTensor]
    _libraries: list[str | None]  # that each tensor was of
    _note: bytes  # everything of it but the tensors' memory, for a message

    def __init__(self) -> None:
        raise TypeError("a Shared is made by dlbridge.share() or dlbridge.shared_empty()")

    @classmethod
    def _of(
        cls,
        tree: Any,
        tensors: list[ManagedTensor],
        libraries: list[str | None],
        mode: Mode,
        note: bytes | None = None,
    ) -> Shared:
        if note is None:
            from dlbridge.processes.notes import written  # here: most programs share nothing

            # Now, so that what cannot be sent is an error of the call that was given it.
            note = written((tree, libraries), tensors)
        made = object.__new__(cls)
        made._tree = tree
        made._tensors = tensors
        made._libraries = libraries
        made._note = note
        made.mode = mode
        return made

    @property
    def tree(self) -> Any:
        """The tree, with a ``ManagedTensor`` in the place of each array; of one array, that."""
        if self._tensors is _GONE:
            raise ValueError(
                "this Shared was given away, and its memory is the receiver's; share a copy to go "
                "on with it here"
            )
        return self._tree

    @property
    def nbytes(self) -> int:
        """Of all its tensors."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def __repr__(self) -> str:
        if self._tensors is _GONE:
            return "<dlbridge.Shared, given away>"
        count = len(self._tensors)
        what = f"{count} tensors" if count != 1 else repr(self._tensors[0])
        return f"<dlbridge.Shared mode={self.mode!r}: {what}, {self.nbytes:,} bytes>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Shared is no data of its own to pickle; multiprocessing takes it, joblib (imported "
            "before it was made) and dlbridge.send() take it, and dlbridge.dumps(x.tree) writes "
            "its values down"
        )

    def _give_away(self) -> None:
        if self.mode == "give":
            self._tree, self._tensors = None, _GONE


_GONE: list[ManagedTensor] = []


# What the note of a message begins with: what was sent, or that some of it is on devices.
SHARED, TREE, DEVICES = b"s", b"t", b"d"


def devices_of(tensors: list[ManagedTensor]) -> Any:
    """The module for memory of devices, which is there where any of them has such; or None."""
    devices = sys.modules.get("dlbridge.processes.devices")
    if devices is not None and any(each.device.type == devices.CUDA for each in tensors):
        return devices
    return None


def shared_of(
    mode: Mode, tensors: list[ManagedTensor], note: bytes, of_note: list[int]
) -> tuple[Shared, bool]:
    """What a message holds, and whether a ``Shared`` was sent."""
    from dlbridge.processes.notes import read

    if note[:1] == DEVICES:
        from dlbridge.processes.devices import received

        tensors, note = received(tensors, mode, note[1:], of_note)
    else:  # of a program that has its own use for them
        for number in of_note:
            os.close(number)
    if not note:  # of a program without Python: its tensors, one behind the other
        tree: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        return Shared._of(tree, tensors, [None] * len(tensors), mode), False
    tree, libraries = read(note[1:], tensors)
    if not isinstance(libraries, list) or len(libraries) != len(tensors):
        raise pickle.UnpicklingError("the tree that was sent is damaged")
    return Shared._of(tree, tensors, libraries, mode, note[1:]), note[:1] == SHARED
