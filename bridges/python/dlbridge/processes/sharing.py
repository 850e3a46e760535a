"""Trees of tensors for other processes: shared, sent and received."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import WeakKeyDictionary

from dlbridge import _core
from dlbridge._core import ManagedTensor
from dlbridge._registry import library_for
from dlbridge._targets import to
from dlbridge.processes.shared import DEVICES, SHARED, TREE, Mode, Shared, devices_of, shared_of

if TYPE_CHECKING:
    import socket
    from types import ModuleType

    from dlbridge._policy import Policy


def share(x: Any, /, *, mode: Mode = "read", policy: Policy | str | None = None) -> Shared:
    """A tree of arrays, from any library, in one block that other processes can map.

    Only what does not lie in a block already (``shared_empty``, or received) is copied, as
    ``explain(x, "process")`` says beforehand, and refused where ``policy`` forbids it. Memory of
    CUDA stays on its device where the policy refuses to copy it to the host.
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
    return _known_to_children(Shared._of(tree, tensors, libraries, mode))


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
    return _known_to_children(Shared._of(made, [made], [None], mode or "read"))


def send(sock: socket.socket, obj: Any, *, policy: Policy | str | None = None) -> None:
    """Sends a tree of arrays, or a ``Shared``, to whoever reads the other end with ``recv``.

    ``sock`` is a connected AF_UNIX socket of the type SOCK_STREAM, used by one thread at a time.
    What is not shared already is copied once, into a block, as ``share`` does under ``policy``. The
    tree's own classes have to be known to the receiver.
    """
    number, patience = _number_and_patience(sock)
    if isinstance(obj, Shared) and policy is not None:
        raise ValueError("a Shared was shared under a policy already; give it to share() instead")
    shared = obj if isinstance(obj, Shared) else share(obj, policy=policy)
    tensors, tree = shared._tensors, shared.tree
    sent, note, of_note = tensors, (SHARED if obj is shared else TREE) + shared._note, []
    if devices := devices_of(tensors):
        sent, note, of_note = devices.lent(tensors, shared.mode, note)
        note = DEVICES + note
    shared._give_away()
    try:
        _core.send_shared(number, sent, shared.mode, note, patience, of_note)
    except BaseException:
        shared._tensors, shared._tree = tensors, tree
        raise


def recv(sock: socket.socket, target: str | ModuleType | None = None) -> Any:
    """The next tree that ``send`` sent, each array of the library that it was sent from.

    With a ``target`` all are of that library. A ``Shared`` arrives as one. NumPy's arrays of what
    is for reading are read-only; torch, which knows no such memory, gets pages that are copied when
    they are written to. What cannot become the ``target``'s is refused and stays the next tree that
    ``recv`` of this very socket gives (``select`` does not see it). An EOFError where the sender
    has closed the socket.
    """
    if target is not None:
        library_for(target)  # an unknown one is found before anything is read
    number, patience = _number_and_patience(sock)
    shared, whole = (_refused and _refused.pop(sock, None)) or _received(number, patience)
    if target is not None:
        try:
            return to(shared.tree, target)
        except BaseException:
            with suppress(TypeError):  # of a class of one's own that has no weak references
                _refused[sock] = shared, whole
            raise
    return _known_to_children(shared) if whole else _as_sent(shared)


# By the socket that they came from.
_refused: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()


def _received(number: int, patience: int | None) -> tuple[Shared, bool]:
    received = _core.receive_shared(number, patience)
    if received is None:
        raise EOFError("the sender has closed the socket")
    return shared_of(*received)


def _known_to_children(shared: Shared) -> Shared:
    from dlbridge.processes.places import known_to_children  # here: most programs share nothing

    return known_to_children(shared)


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
