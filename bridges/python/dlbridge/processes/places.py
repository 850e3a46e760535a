"""Where a tree can be had by processes of this machine, for engines that carry bytes."""

from __future__ import annotations

import sys
from multiprocessing import reduction
from typing import Any, TypeAlias

from dlbridge import _core
from dlbridge._errors import refused
from dlbridge.processes.addresses import Address, address_of, fetched, lending, lent
from dlbridge.processes.shared import SHARED, Shared, devices_of, shared_of

# What can be pickled.
Place: TypeAlias = tuple[bytes, tuple[Any, ...], bool]


class Offer:
    """A tree that processes of this machine may fetch, as often as they like, while this lives."""

    def __init__(self, shared: Shared) -> None:
        message, descriptors = _packed(shared)
        self._lent = lent(descriptors)
        self.place: Place = (message, tuple(address_of(descriptors)), shared.mode != "read")


def place_for_one(shared: Shared) -> Place:
    """Where it can be had once. It stays there until then, or until this process ends."""
    message, descriptors = _packed(shared)
    place = (message, tuple(lending.lend(descriptors)), shared.mode != "read")
    shared._give_away()
    return place


def fetch(place: Place) -> Shared:
    """The tree that is there. A ConnectionError where its process has ended."""
    message, address, write = place
    descriptors = fetched(Address(*address), write)
    return shared_of(*_core.unpack_shared(message, descriptors))[0]


def _packed(shared: Shared) -> tuple[bytes, list[int]]:
    _ = shared.tree  # which says so where it was given away
    if devices_of(shared._tensors):
        raise refused(
            "cannot share memory of a device so",
            "the kernel's descriptor of it travels by a socket only",
            "dlbridge.send(sock, x)",
        )
    return _core.pack_shared(shared._tensors, shared.mode, SHARED + shared._note)


def _reduce(shared: Shared) -> Any:
    return fetch, (place_for_one(shared),)


def _tell_picklers() -> None:
    """Those that go by a table of their own; joblib's is there once joblib is imported."""
    reduction.ForkingPickler.register(Shared, _reduce)
    loky = sys.modules.get("joblib.externals.loky.backend.reduction")
    if loky is not None:
        loky.register(Shared, _reduce)


_tell_picklers()  # in a child too, which may send on what it received


def known_to_children(shared: Shared) -> Shared:
    """The Shared, which multiprocessing and joblib can send from now on."""
    _tell_picklers()
    lending.begin()
    return shared
