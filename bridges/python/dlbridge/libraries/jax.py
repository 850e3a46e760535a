"""JAX: immutable, and picky about alignment and layout."""

from dlbridge import Capabilities, Library
from dlbridge.libraries import FLOAT8, MORE_FLOAT8, PLAIN, WIDE

_DTYPES = (*PLAIN, "bfloat16", *FLOAT8, *MORE_FLOAT8)


def _with_dtypes(dtypes: tuple[str, ...]) -> Capabilities:
    return Capabilities(
        result="jax.Array",
        devices=("cpu", "cuda", "rocm"),
        dtypes=dtypes,
        strides="compact",
        alignment=64,
        writable=False,
        takes_as_constant=True,
    )


_WITHOUT_X64 = _with_dtypes(tuple(name for name in _DTYPES if name not in WIDE))
_WITH_X64 = _with_dtypes(_DTYPES)


def _now() -> Capabilities:
    import jax

    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined,unused-ignore]
    return _WITH_X64 if wide else _WITHOUT_X64


ROWS = (
    Library(
        name="jax",
        modules=("jax", "jaxlib"),
        object="jax.Array",
        immutable=True,
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
