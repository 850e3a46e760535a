"""show: any tensor of any library as pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlbridge import _core
from dlbridge._trees import is_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Array = npt.NDArray[Any]
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def show(
    x: Any,
    /,
    *,
    channels: str | None = None,
    columns: int | None = None,
    titles: Any = None,
    cmap: str = "gray",
    path: Any = None,
) -> Figure:
    """Draws ``x``, an array of any library on any device, as a grid of images, with matplotlib.

    ``x`` is one image (H, W), (H, W, C) or (C, H, W), a batch of those, or a list of images. Where
    the channels are is seen from the shape; ``channels="first"``, ``"last"`` or ``"none"`` says it.
    uint8 is shown as it is; other values as they are where they lie in 0..1, otherwise scaled by
    the least and the greatest of all images. Gives the matplotlib Figure, also saved to ``path``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    images = _scaled(_images(x, channels))
    columns = columns or math.ceil(math.sqrt(len(images) * 1.3))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    size = (max(2.0, 1.6 * columns), max(2.0, 1.6 * rows))
    interactive = path is None and matplotlib.get_backend().lower() in _interactive_backends()
    if interactive:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size, layout="constrained")
    else:
        figure = Figure(figsize=size, layout="constrained")
    for place, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(image, cmap=cmap, vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axes.set_axis_off()
        if titles is not None:
            axes.set_title(str(titles[place]), fontsize=8)
    if path is not None:
        figure.savefig(path)
    if interactive:
        figure.show()
    return figure


def _interactive_backends() -> list[str]:
    from matplotlib.backends.registry import BackendFilter, backend_registry

    names = backend_registry.list_builtin(BackendFilter.INTERACTIVE)  # type: ignore[no-untyped-call]
    return [name.lower() for name in names]


def _images(x: Any, channels: str | None) -> list[_Array]:
    if channels not in (None, "first", "last", "none"):
        raise ValueError(
            f"channels={channels!r} is no place; use one of None, 'first', 'last', 'none'"
        )
    if isinstance(x, (list, tuple)):
        images = [image for each in x for image in _images(each, channels)]
    elif is_array(x):
        images = _of_array(_plain(x), channels)
    else:
        raise TypeError(f"show() draws arrays and lists of them, not {type(x).__name__}")
    if not images:
        raise ValueError("there is no image to show: the array or list is empty")
    return images


def _plain(x: Any) -> _Array:
    array: _Array = _core.to_numpy(x)
    if array.dtype.kind == "c":
        return np.abs(array)
    if array.dtype.kind not in "biuf":  # those of ml_dtypes
        return array.astype(np.float32)
    return array


def _of_array(array: _Array, channels: str | None) -> list[_Array]:
    if array.ndim == 2:
        return [array]
    if array.ndim not in (3, 4):
        raise ValueError(
            f"an array of shape {array.shape} is neither an image nor a batch of images; give one "
            "of 2 to 4 dimensions"
        )
    channels = channels or _guess(array.shape)
    if channels == "none":  # each is an image: feature maps, or a batch in grey
        return list(array.reshape(-1, *array.shape[-2:]))
    images = list(array) if array.ndim == 4 else [array]
    if channels == "first":
        images = [np.moveaxis(image, 0, -1) for image in images]
    for image in images:
        if image.shape[-1] not in _CHANNELS:
            raise ValueError(
                f"{image.shape[-1]} channels are no colours; give 1, 3 or 4, or channels='none' to "
                "see each as an image of its own"
            )
    return [image[..., 0] if image.shape[-1] == 1 else image for image in images]


def _guess(shape: tuple[int, ...]) -> str:
    if shape[-3] in _CHANNELS and shape[-1] not in _CHANNELS:
        return "first"
    if shape[-1] in _CHANNELS:
        return "last"
    return "none"


def _scaled(images: list[_Array]) -> list[_Array]:
    if all(image.dtype == np.uint8 for image in images):
        return images
    wide = [image.astype(np.float32) for image in images]
    finite = [image[np.isfinite(image)] for image in wide]
    low = min((float(each.min()) for each in finite if each.size), default=0.0)
    high = max((float(each.max()) for each in finite if each.size), default=1.0)
    if low < 0 or high > 1:
        span = high - low or 1.0
        wide = [(image - low) / span for image in wide]
    return [np.clip(np.nan_to_num(image, nan=0.0), 0, 1) for image in wide]
