"""dpnp: arrays of SYCL devices, as dpctl finds them."""

from typing import Any

import dlbridge
from dlbridge import Capabilities, Library
from dlbridge.libraries import PLAIN


def _on(devices: tuple[str, ...], missing: tuple[str, ...] = ()) -> Capabilities:
    return Capabilities(
        result="dpnp.ndarray",
        devices=devices,
        own_device="oneapi",
        dtypes=tuple(name for name in PLAIN if name not in missing),
        read_only="honours",
    )


_KNOWN: dict[tuple[bool, bool], Capabilities] = {}
_WITHOUT_DEVICE = _on(())


def _now() -> Capabilities:
    import dpctl

    if not dpctl.get_devices():
        return _WITHOUT_DEVICE
    device = dpctl.select_default_device()
    has = (device.has_aspect_fp16, device.has_aspect_fp64)
    if has not in _KNOWN:
        missing = (() if has[0] else ("float16",)) + (() if has[1] else ("float64", "complex128"))
        _KNOWN[has] = _on(("oneapi",), missing)
    return _KNOWN[has]


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
            "no_way_to_device": "dpnp finds no SYCL device",
        },
    ),
)
