"""dpnp: arrays of SYCL devices, as dpctl finds them."""

import functools
from typing import Any

import dlbridge
from dlbridge import Capabilities, Library
from dlbridge.libraries import PLAIN


@functools.cache
def _on(*devices: str, missing: tuple[str, ...] = ()) -> Capabilities:
    dtypes = tuple(name for name in PLAIN if name not in missing)
    return Capabilities(
        devices=devices,
        own_device="oneapi",
        dtypes=dtypes,
        strides="non-negative",
        read_only="honours",
    )


def _now() -> Capabilities:
    import dpctl

    if not dpctl.get_devices():
        return _on()
    device = dpctl.select_default_device()
    half = () if device.has_aspect_fp16 else ("float16",)
    double = () if device.has_aspect_fp64 else ("float64", "complex128")
    return _on("oneapi", missing=(*half, *double))


def _take_host(managed: Any) -> Any:
    import dpnp

    return dpnp.asarray(dlbridge.to_numpy(managed))


ROWS = (
    Library(
        name="dpnp",
        modules=("dpnp", "dpctl"),
        object="dpnp.ndarray",
        capabilities=_now,
        take="dpnp:from_dlpack",
        take_host=_take_host,
        quirks={
            "other_device": "dpnp.from_dlpack gives a NumPy array for memory of the host, and "
            "ignores its byte_offset; it is copied to a device instead",
            "negative_strides": "dpnp fails inside",
            "no_way_to_device": "dpnp finds no SYCL device",
        },
    ),
)
