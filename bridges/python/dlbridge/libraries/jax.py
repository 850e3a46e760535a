"""JAX: immutable, and picky about alignment and layout."""

import functools
from typing import Any

from dlbridge import Capabilities, ConversionRefused, Library
from dlbridge._errors import refused
from dlbridge.libraries import FLOAT8, MORE_FLOAT8, PLAIN, WIDE


@functools.cache
def _with(missing: tuple[str, ...]) -> Capabilities:
    dtypes = (*PLAIN, "bfloat16", *FLOAT8, *MORE_FLOAT8)
    return Capabilities(
        devices=("cpu", "cuda", "rocm"),
        dtypes=tuple(name for name in dtypes if name not in missing),
        strides="compact",
        alignment=64,
        writable=False,
        takes_as_constant=True,
    )


def _now() -> Capabilities:
    import jax

    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined,unused-ignore]
    return _with(() if wide else WIDE)


def _refusal(x: Any, error: Exception) -> ConversionRefused | None:
    what = "cannot take a jax.Array in"
    if x.is_deleted():
        return refused(what, "it was deleted, as one whose memory was given away is")
    devices = len(x.sharding.device_set)
    if devices > 1:
        gather = "np.asarray(x)" if x.is_fully_addressable else None
        return refused(what, f"its values lie on {devices} devices", gather)
    if x.dtype.name.lstrip("u") in ("int1", "int2", "int4"):
        return refused(what, f"jax exports no {x.dtype.name}", 'x.astype("int8")')
    return None


ROWS = (
    Library(
        name="jax",
        modules=("jax", "jaxlib"),
        object="jax.Array",
        immutable=True,
        refusal=_refusal,
        fixes={"read_only": "np.array(x)"},
        capabilities=_now,
        take="jax.dlpack:from_dlpack",
        address=lambda result: int(result.unsafe_buffer_pointer()),
        quirks={
            "misaligned": "jax copies what is not aligned to 64 bytes, without a word",
            "not_compact": "jax refuses what has gaps or overlaps",
            "missing_dtype": "jax turns 64-bit types into 32-bit ones without a word, unless its "
            "jax_enable_x64 is set",
            "copy_asked": "jax.dlpack.from_dlpack(copy=True) does not copy; dlbridge does before",
            "read_only": "jax asks for legacy capsules, which cannot say that memory is read-only",
        },
    ),
)
