"""Trees of tensors for other processes, in memory that both sides map."""

from __future__ import annotations

import math
import operator
import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias

from dlbridge import _core
from dlbridge._core import ManagedTensor
from dlbridge._targets import library_for, to

if TYPE_CHECKING:
    import socket
    from types import ModuleType

    from dlbridge._policy import Policy

Mode: TypeAlias = Literal["read", "give", "write"]


class Shared:
    """A tree of tensors in blocks of memory that other processes can map.

    ``to_numpy``, ``to_torch`` and ``to`` make a tree of arrays of it, as of the tree that it was
    made of: views. It goes to children by ``multiprocessing`` (a queue, a pipe, a pool, arguments),
    and to any other process of the same user by ``send``; its memory stays where it is, and comes
    back to be used again when the last of both sides has let go of it.

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
        # Imported here: most programs share nothing.
        from dlbridge.processes import notes
        from dlbridge.processes.places import lending

        if note is None:
            lending.begin()
        made = object.__new__(cls)
        made._tree = tree
        made._tensors = tensors
        made._libraries = libraries
        # Written now, so that what cannot be sent is an error of the call that was given it.
        made._note = note or notes.written((tree, libraries), tensors)
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
            "a Shared is no data of its own to pickle; multiprocessing takes it, dlbridge.send() "
            "takes it, and dlbridge.dumps(x.tree) writes its values down"
        )

    def _give_away(self) -> None:
        if self.mode == "give":
            self._tree, self._tensors = None, _GONE


_GONE: list[ManagedTensor] = []


def share(x: Any, /, *, mode: Mode = "read", policy: Policy | str | None = None) -> Shared:
    """A tree of arrays, from any library, in one block that other processes can map.

    Only what does not lie in a block already (``shared_empty``, or received) is copied, as
    ``explain(x, "process")`` says beforehand, and refused where ``policy`` forbids it.
    """
    target = _core.shared_target(mode, _core.shared_bytes(x, mode, policy))
    tensors: list[ManagedTensor] = []
    libraries: list[str | None] = []

    def leaf(x: Any, leaf: bool = True) -> Any:
        made = _core.cross_to(x, target, policy, None, None, None, None, None, None, leaf)
        if isinstance(made, ManagedTensor):
            tensors.append(made)
            library = _core.library_of(x)
            libraries.append(None if library == "dlbridge" else library)
        return made

    tree = None if _core.is_tensor(x) else _core.map_tree(x, leaf)
    if tree is None:
        tree = leaf(x, False)
    return Shared._of(tree, tensors, libraries, mode)


def shared_empty(
    shape: SupportsIndex | Iterable[SupportsIndex],
    dtype: Any = "float32",
    *,
    mode: Mode | None = None,
) -> Shared:
    """New memory in a block that other processes can map, with whatever is in it.

    To be filled through ``to_numpy`` or ``to_torch`` of it, and then shared: nothing is copied.
    Where it will be shared for reading only, ``mode="read"`` lets it be a block that was already.
    """
    sizes = shape if isinstance(shape, Iterable) else (shape,)
    made = _core.shared_allocate(tuple(map(operator.index, sizes)), dtype, mode or "write")
    return Shared._of(made, [made], [None], mode or "read")


def send(sock: socket.socket, obj: Any) -> None:
    """Sends a tree of arrays, or a ``Shared``, to whoever reads the other end with ``recv``.

    ``sock`` is a connected AF_UNIX socket of the type SOCK_STREAM, used by one thread at a time.
    What is not shared already is copied once, into a block. The tree's own classes have to be known
    to the receiver.
    """
    number, patience = _number_and_patience(sock)
    shared = obj if isinstance(obj, Shared) else share(obj)
    tensors, tree = shared._tensors, shared.tree
    note = (SHARED if obj is shared else _TREE) + shared._note
    shared._give_away()
    try:
        _core.send_shared(number, tensors, shared.mode, note, patience)
    except BaseException:
        shared._tensors, shared._tree = tensors, tree
        raise


def recv(sock: socket.socket, target: str | ModuleType | None = None) -> Any:
    """The next tree that ``send`` sent, each array of the library that it was sent from.

    With a ``target`` all are of that library. A ``Shared`` arrives as one. NumPy's arrays of what
    is for reading are read-only; torch, which knows no such memory, gets pages that are copied when
    they are written to. An EOFError where the sender has closed the socket.
    """
    if target is not None:
        library_for(target)  # an unknown one is found before anything is read
    received = _core.receive_shared(*_number_and_patience(sock))
    if received is None:
        raise EOFError("the sender has closed the socket")
    shared, whole = shared_of(*received)
    if target is not None:
        return to(shared.tree, target)
    return shared if whole else _as_sent(shared)


def _number_and_patience(sock: socket.socket) -> tuple[int, int | None]:
    """The socket's descriptor, and its timeout in milliseconds."""
    try:
        number, seconds = sock.fileno(), sock.gettimeout()
    except AttributeError:
        raise TypeError(f"sock must be a socket, not {type(sock).__name__}") from None
    return number, None if seconds is None else math.ceil(1000 * seconds)


def _as_sent(shared: Shared) -> Any:
    """The tree, each tensor of the library that it was of, whatever the policy of a block says.

    The message is read by then: a refusal would lose it.
    """
    made = {
        id(tensor): to(tensor, library, policy="host") if library is not None else tensor
        for tensor, library in zip(shared._tensors, shared._libraries, strict=True)
    }
    if isinstance(shared._tree, ManagedTensor):
        return made[id(shared._tree)]
    return _core.map_tree(shared._tree, lambda tensor: made[id(tensor)])


# What the note of a message begins with: what was sent.
SHARED, _TREE = b"s", b"t"


def shared_of(mode: Mode, tensors: list[ManagedTensor], note: bytes) -> tuple[Shared, bool]:
    """What a message holds, and whether a ``Shared`` was sent."""
    from dlbridge.processes import notes

    if not note:  # of a program without Python: its tensors, one behind the other
        tree: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        return Shared._of(tree, tensors, [None] * len(tensors), mode), False
    tree, libraries = notes.read(note[1:], tensors)
    if not isinstance(libraries, list) or len(libraries) != len(tensors):
        raise pickle.UnpicklingError("the tree that was sent is damaged")
    return Shared._of(tree, tensors, libraries, mode, note[1:]), note[:1] == SHARED
