"""How the portable road keeps a storage's memory where its views are."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch

from dlbridge._torch.tensors import host_tensor, unwatched

# What would take a storage's memory away from its views. share_memory_() moves a storage's contents
# and frees the old ones (torch 2.15).
_MOVERS = ("share_memory_", "_share_fd_cpu_", "_share_filename_cpu_")


class StorageInUseError(RuntimeError, BufferError):
    """A storage would move while views of it are alive: a RuntimeError, as torch's own refusals."""


def guard(storage: torch.UntypedStorage) -> None:
    """Makes a storage refuse what would take its memory away while it has views.

    Once, at its first view: its own methods for that are shadowed by ones that look at the number
    of views, which the module keeps in ``_dlbridge_views``; it is not resizable any more, as after
    ``Tensor.numpy()``; and where torch lets two storages swap their memory (2.12), copy-on-write
    clones of it raise, as on the linked road: the first write after one would move the tensor and
    leave the memory to the clone alone, and the views would lose it with the clone.
    """
    if storage.device.type != "cpu":
        return
    # numpy() marks the storage; an empty tensor of bytes over it will do for any type.
    with unwatched():
        host_tensor().set_(storage, 0, (0,), (1,)).numpy()
    if storage.is_shared():
        return
    for name in _MOVERS:
        setattr(storage, name, functools.partial(_move, weakref.ref(storage), name))
    if hasattr(storage, "_swap_data_ptr_"):
        # The same memory, but another storage owns it: a clone wants a storage that owns its own.
        owner = torch._C._construct_storage_from_data_pointer(
            storage.data_ptr(), storage.device, storage.nbytes()
        )
        # Other threads may be here too: what replaced an owner that was swapped in would end it.
        if storage.__dict__.setdefault("_dlbridge_memory", owner) is owner:
            storage._swap_data_ptr_(owner)


def _move(
    reference: weakref.ref[torch.UntypedStorage], name: str, *args: object, **kwargs: object
) -> Any:
    storage = reference()
    assert storage is not None  # it is called through the storage
    if storage.__dict__["_dlbridge_views"].count:
        raise StorageInUseError(
            "cannot move this storage into shared memory while views of it are alive in another "
            "library (they would read freed memory); use share_memory_() before the conversion, "
            "or del the views first"
        )
    for each in _MOVERS:
        storage.__dict__.pop(each, None)
    moved = getattr(storage, name)(*args, **kwargs)
    storage.__dict__.pop("_dlbridge_memory", None)
    return moved
