"""How the portable road keeps a storage's memory where its views are."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch

# What would take a storage's memory away from its views. share_memory_() moves a storage's contents
# and frees the old ones (torch 2.15).
_MOVERS = ("share_memory_", "_share_fd_cpu_", "_share_filename_cpu_")


class StorageInUseError(RuntimeError, BufferError):
    """A storage would move while views of it are alive: a RuntimeError, as torch's own refusals."""


def guard(storage: torch.UntypedStorage) -> None:
    """Makes a storage refuse what would take its memory away while it has views.

    Once, at its first view: its own methods for that are shadowed by ones that look at the number
    of views, which the module keeps in ``_dlbridge_views``; and it is not resizable any more, as
    after ``Tensor.numpy()``.
    """
    _watch_lazy_clones()
    if storage.device.type != "cpu":
        return
    # numpy() marks the storage; an empty tensor of bytes over it will do for any type.
    torch.empty(0, dtype=torch.uint8).set_(storage, 0, (0,), (1,)).numpy()
    if not storage.is_shared():
        for name in _MOVERS:
            setattr(storage, name, functools.partial(_move, weakref.ref(storage), name))


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
    return getattr(storage, name)(*args, **kwargs)


@functools.cache
def _watch_lazy_clones() -> None:
    """Copy-on-write clones of a storage with views raise, as they do on the linked road.

    The first write would move the tensor and leave the memory to the clone alone (torch 2.15): the
    views would lose it with the clone, and until then what is written to them would show there.
    """
    owners: tuple[Any, ...] = (torch, torch.Tensor)
    for owner in owners:
        original = getattr(owner, "_lazy_clone", None)
        if original is not None:
            owner._lazy_clone = _without_views(original)


def _without_views(original: Any) -> Any:
    @functools.wraps(original)
    def lazy_clone(x: torch.Tensor) -> Any:
        views = x.untyped_storage().__dict__.get("_dlbridge_views")
        if views is not None and views.count:
            raise StorageInUseError(
                "cannot make a copy-on-write clone of a tensor while views of its memory are alive "
                "in another library (they would follow neither of the two); use clone(), or del "
                "the views first"
            )
        return original(x)

    return lazy_clone
