"""CuPy: arrays of the GPU, where there is one."""

import functools
from typing import Any

import dlbridge
from dlbridge import Capabilities, Library
from dlbridge.libraries import PLAIN


def _now() -> Capabilities:
    import cupy

    try:
        there = cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        there = False
    return _on("cuda") if there else _on()


@functools.cache
def _on(*devices: str) -> Capabilities:
    return Capabilities(devices=devices, own_device="cuda", dtypes=(*PLAIN, "bfloat16"))


def _take_host(managed: Any) -> Any:
    import cupy

    return cupy.asarray(dlbridge.to_numpy(managed))


ROWS = (
    Library(
        name="cupy",
        object="cupy.ndarray",
        legacy_writable=True,
        capabilities=_now,
        take="cupy:from_dlpack",
        take_host=_take_host,
        quirks={
            "no_way_to_device": "cupy takes no memory of the host",
            "other_device": "cupy takes no memory of the host: it is copied to the GPU",
            "read_only": "cupy drops the read-only flag",
        },
    ),
)
