"""For Ray: tensors from actor to actor of one machine, in blocks that both map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ray.experimental import register_tensor_transport
from ray.experimental.rdt.tensor_transport_manager import (
    CommunicatorMetadata,
    TensorTransportManager,
    TensorTransportMetadata,
)

from dlbridge import share, to_torch
from dlbridge.processes.places import Offer, Place, fetch

NAME = "DLBRIDGE"


@dataclass
class _Metadata(TensorTransportMetadata):  # type: ignore[misc]
    place: Place | None = None


class _Transport(TensorTransportManager):  # type: ignore[misc]
    """Of one process. What its tasks returned is offered until Ray collects it."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}

    def tensor_transport_backend(self) -> str:
        return NAME

    @staticmethod
    def is_one_sided() -> bool:
        return True

    @staticmethod
    def can_abort_transport() -> bool:
        return True

    def actor_has_tensor_transport(self, actor: Any) -> bool:
        return True

    def extract_tensor_transport_metadata(self, obj_id: str, rdt_object: list[Any]) -> _Metadata:
        if not rdt_object:
            return _Metadata([])
        offer = self._offers[obj_id] = Offer(share(list(rdt_object)))
        return _Metadata([(x.shape, x.dtype) for x in rdt_object], "cpu", offer.place)

    def get_communicator_metadata(
        self, src_actor: Any, dst_actor: Any, backend: str | None = None
    ) -> CommunicatorMetadata:
        return CommunicatorMetadata()

    def recv_multiple_tensors(
        self,
        obj_id: str,
        tensor_transport_metadata: _Metadata,
        communicator_metadata: CommunicatorMetadata,
        target_buffers: list[Any] | None = None,
    ) -> Any:
        place = tensor_transport_metadata.place
        received: Any = [] if place is None else to_torch(fetch(place))
        if target_buffers is None:
            return received
        for buffer, tensor in zip(target_buffers, received, strict=True):
            buffer.copy_(tensor)
        return target_buffers

    def send_multiple_tensors(self, *arguments: Any) -> None:
        raise NotImplementedError("who receives fetches")

    def garbage_collect(self, obj_id: str, *arguments: Any) -> None:
        self._offers.pop(obj_id, None)

    def abort_transport(self, obj_id: str, *arguments: Any) -> None:
        self._offers.pop(obj_id, None)


def transport() -> str:
    """Registers the transport with Ray, and gives its name, for ``@ray.method``.

    >>> name = transport()                                  # before the actors are made
    >>> @ray.remote(enable_tensor_transport=True)
    ... class Producer:
    ...     @ray.method(tensor_transport=name)
    ...     def batch(self): ...

    What an actor's method returns is copied once into a block (not at all if it was born in one,
    ``dlbridge.shared_empty``), and every actor of the same machine that gets it maps that. It may
    write to its tensors: pages are copied then. Of Ray's interface for transports, which is alpha
    (2.60).
    """
    try:
        register_tensor_transport(NAME, ["cpu"], _Transport, torch.Tensor)
    except ValueError as error:
        if "already registered" not in str(error):
            raise
    return NAME
