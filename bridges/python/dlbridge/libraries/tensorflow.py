"""TensorFlow: immutable; legacy capsules only."""

from typing import Any

from dlbridge import Capabilities, ConversionRefused, Library
from dlbridge._errors import refused
from dlbridge.libraries import PLAIN, address_by_dlpack

# Why it is refused, and the call that makes a tensor of it.
_NOT_DENSE = {
    "RaggedTensor": ("its rows differ in length", "x.to_tensor() (padded with zeros)"),
    "SparseTensor": ("it has no dense memory", "tf.sparse.to_dense(x)"),
}


def _read(x: Any) -> Any:
    """Tensors as they are; a variable's value. Asking for a capsule of strings ends the process."""
    name = type(x).__name__
    if name in _NOT_DENSE:
        raise refused(f"cannot take a tf.{name} in", *_NOT_DENSE[name])
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "name", "") in ("string", "variant", "resource"):
        raise refused(
            f"cannot take a tf.Tensor of dtype {dtype.name} in",  # type: ignore[union-attr]
            "DLPack has no such type, and TensorFlow ends the process when asked",
        )
    return x.value() if name.endswith("Variable") else x


def _refusal(x: Any, error: Exception) -> ConversionRefused | None:
    if "not supported by dlpack" not in str(error):
        return None
    name = x.dtype.name
    what = f"cannot take a tf.Tensor of dtype {name} in"
    wide = {"f": "float32", "i": "int8", "u": "int8"}.get(name[0])  # holds float8, int4 or uint4
    return refused(what, f"TensorFlow exports no {name}", wide and f'tf.cast(x, "{wide}")')


ROWS = (
    Library(
        name="tensorflow",
        modules=("tensorflow", "keras"),
        object="tf.Tensor",
        immutable=True,
        read=_read,
        refusal=_refusal,
        fixes={"read_only": "x.numpy()"},
        capabilities=Capabilities(
            devices=("cpu", "cuda"),
            dtypes=(*PLAIN, "bfloat16"),
            strides="compact",
            alignment=64,
            writable=False,
            takes_as_constant=True,
        ),
        take="tensorflow:experimental.dlpack.from_dlpack",
        handed="legacy",
        address=address_by_dlpack,
        quirks={
            "misaligned": "tensorflow ends the process at the first operation on memory that is "
            "not aligned to 64 bytes",
            "not_compact": "tensorflow refuses what is not C-contiguous",
            "read_only": "tensorflow takes legacy capsules, which cannot say that memory is "
            "read-only",
        },
    ),
)
