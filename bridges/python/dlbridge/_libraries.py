"""What dlbridge knows of each library: rows of data, measured on the releases of 2026-11.

Read when the first tensor of another library than NumPy and torch comes by, or is asked for. The
tests of tests/python/libraries hold every row against the library itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from dlbridge import _buffers, _core, _targets
from dlbridge._registry import Capabilities, Library
from dlbridge._targets import refused

INTEGERS = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
WIDE = ("int64", "uint64", "float64", "complex128")
PLAIN = ("bool", *INTEGERS, *UNSIGNED, *FLOATS, *COMPLEX)
FLOAT8 = (
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
MORE_FLOAT8 = ("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz")


def _pointer_method(result: Any) -> int:
    return int(result.data_ptr())


def _pointer_in_dlpack(result: Any) -> int:
    return _core.from_dlpack(result).data_ptr


# --- JAX --------------------------------------------------------------------------------------

_JAX_TYPES = (*PLAIN, "bfloat16", *FLOAT8, *MORE_FLOAT8)


def _jax_capabilities(dtypes: tuple[str, ...]) -> Capabilities:
    return Capabilities(
        result="jax.Array",
        devices=("cpu", "cuda", "rocm"),
        dtypes=dtypes,
        strides="compact",
        alignment=64,
        writable=False,
    )


_JAX = _jax_capabilities(tuple(name for name in _JAX_TYPES if name not in WIDE))
_JAX_WITH_X64 = _jax_capabilities(_JAX_TYPES)


def _jax_now() -> Capabilities:
    import jax

    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined,unused-ignore]
    return _JAX_WITH_X64 if wide else _JAX


# --- TensorFlow -------------------------------------------------------------------------------


def _read_tensorflow(x: Any) -> Any:
    """Tensors as they are; a variable's value. Asking for a capsule of strings ends the process."""
    name = type(x).__name__
    if name == "RaggedTensor":
        raise refused(
            "cannot take a tf.RaggedTensor in", "its rows differ in length", "x.to_tensor()"
        )
    if name == "SparseTensor":
        raise refused(
            "cannot take a tf.SparseTensor in", "it has no dense memory", "tf.sparse.to_dense(x)"
        )
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "name", "") in ("string", "variant", "resource"):
        raise refused(
            f"cannot take a tf.Tensor of dtype {dtype.name} in",  # type: ignore[union-attr]
            "DLPack has no such type, and TensorFlow ends the process when asked",
        )
    return x.value() if name.endswith("Variable") else x


# --- Paddle -----------------------------------------------------------------------------------


def _read_paddle(x: Any) -> Any:
    if hasattr(x, "is_sparse") and x.is_sparse():
        raise refused("cannot take a paddle.Tensor in", "its layout is sparse", "x.to_dense()")
    return x if getattr(x, "stop_gradient", True) else x.detach()


class _HandedToPaddle:
    """Lives as long as Paddle holds the memory at an address."""

    def __init__(self) -> None:
        self.tensor: Callable[[], Any] = lambda: None  # a weak reference


_handed_to_paddle: weakref.WeakValueDictionary[int, _HandedToPaddle] = weakref.WeakValueDictionary()


def _to_paddle(managed: _core.ManagedTensor) -> Any:
    """Paddle's import; a view of what Paddle holds already where it does.

    Paddle 3.3 knows a deleter by the address of its data: of two tensors at one address, it calls
    the newer one's when the older ends, and the other never.
    """
    import paddle

    address = managed.data_ptr
    handed = _handed_to_paddle.get(address) if managed.nbytes else None
    if handed is None:
        handed = _HandedToPaddle()
        if managed.nbytes:
            _handed_to_paddle[address] = handed
        tensor = paddle.utils.dlpack.from_dlpack(_core.hold(managed, handed))
        handed.tensor = weakref.ref(tensor)
        return tensor
    there = handed.tensor()
    if there is not None and str(there.dtype).rpartition(".")[2] == str(managed.dtype):
        return paddle.as_strided(there.detach(), list(managed.shape), list(managed.strides))
    return paddle.utils.dlpack.from_dlpack(_core.from_dlpack(managed, copy=True))


def _conditions_of_paddle(x: Any) -> Iterable[str]:
    return () if getattr(x, "stop_gradient", True) else ("in_graph",)


# --- pyarrow ----------------------------------------------------------------------------------


def _read_arrow(x: Any) -> Any:
    if type(x).__name__ != "ChunkedArray":
        return x
    if x.num_chunks != 1:
        raise refused(
            "cannot take a pyarrow.ChunkedArray in",
            f"its {x.num_chunks} chunks lie apart",
            "x.combine_chunks()",
        )
    return x.chunk(0)


# --- libraries with devices of their own --------------------------------------------------------


def _cupy_now() -> Capabilities:
    import cupy

    try:
        there = cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        there = False
    return _CUPY if there else _CUPY_WITHOUT_GPU


def _cupy_capabilities(devices: tuple[str, ...]) -> Capabilities:
    return Capabilities(
        result="cupy.ndarray",
        devices=devices,
        own_device="cuda",
        dtypes=(*PLAIN, "bfloat16"),
    )


_CUPY = _cupy_capabilities(("cuda",))
_CUPY_WITHOUT_GPU = _cupy_capabilities(())


def _to_cupy(managed: Any) -> Any:
    import cupy

    return cupy.asarray(_core.to_numpy(managed))


def _dpnp_capabilities(devices: tuple[str, ...], missing: tuple[str, ...] = ()) -> Capabilities:
    return Capabilities(
        result="dpnp.ndarray",
        devices=devices,
        own_device="oneapi",
        dtypes=tuple(name for name in PLAIN if name not in missing),
        read_only="honours",
    )


_DPNP: dict[tuple[bool, bool], Capabilities] = {}
_DPNP_WITHOUT_DEVICE = _dpnp_capabilities(())


def _dpnp_now() -> Capabilities:
    import dpctl

    if not dpctl.get_devices():
        return _DPNP_WITHOUT_DEVICE
    device = dpctl.select_default_device()
    has = (device.has_aspect_fp16, device.has_aspect_fp64)
    if has not in _DPNP:
        missing = (() if has[0] else ("float16",)) + (() if has[1] else ("float64", "complex128"))
        _DPNP[has] = _dpnp_capabilities(("oneapi",), missing)
    return _DPNP[has]


def _to_dpnp(managed: Any) -> Any:
    import dpnp

    return dpnp.asarray(_core.to_numpy(managed))


# --- the others -------------------------------------------------------------------------------

_DRJIT = {
    "bool": "TensorXb",
    "int8": "TensorXi8",
    "int32": "TensorXi",
    "int64": "TensorXi64",
    "uint8": "TensorXu8",
    "uint32": "TensorXu",
    "uint64": "TensorXu64",
    "float16": "TensorXf16",
    "float32": "TensorXf",
    "float64": "TensorXf64",
}


def _to_drjit(managed: Any) -> Any:
    import drjit.llvm

    return getattr(drjit.llvm, _DRJIT[str(managed.dtype)])(managed)


def _to_strided_memory_view(managed: Any) -> Any:
    from cuda.core.utils import StridedMemoryView

    return StridedMemoryView.from_dlpack(managed, -1)


def _to_warp(managed: Any) -> Any:
    import warp

    warp.init()
    return warp.from_dlpack(managed)


def _pointer_of_strict(result: Any) -> int:
    return int(result._array.ctypes.data)


def _read_max(x: Any) -> Any:
    return x if getattr(x, "is_contiguous", True) else x.contiguous()


def _conditions_of_max(x: Any) -> Iterable[str]:
    return () if getattr(x, "is_contiguous", True) else ("copies_out",)


def _to_torch(x: Any, **keywords: Any) -> Any:
    return _core.to_torch(x, **keywords)


LIBRARIES: tuple[Library, ...] = (
    Library(name="numpy", object="numpy.ndarray", convert=_targets.to_numpy),
    Library(name="torch", object="torch.Tensor", convert=_to_torch),
    # No object is told by this row: ctypes' types get the name of the module that makes them.
    Library(
        name="dlbridge",
        modules=("dlbridge.ManagedTensor",),
        object="dlbridge.ManagedTensor",
        convert=_targets.to_managed,
    ),
    Library(
        name="jax",
        modules=("jax", "jaxlib"),
        object="jax.Array",
        immutable=True,
        fixes={"read_only": "np.array(x)"},
        capabilities=_jax_now,
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
    Library(
        name="tensorflow",
        modules=("tensorflow", "keras"),
        object="tf.Tensor",
        immutable=True,
        read=_read_tensorflow,
        fixes={"read_only": "x.numpy()"},
        capabilities=Capabilities(
            result="tf.Tensor",
            devices=("cpu", "cuda"),
            dtypes=(*PLAIN, "bfloat16"),
            strides="compact",
            alignment=64,
            writable=False,
        ),
        take="tensorflow:experimental.dlpack.from_dlpack",
        handed="legacy",
        address=_pointer_in_dlpack,
        quirks={
            "misaligned": "tensorflow ends the process at the first operation on memory that is "
            "not aligned to 64 bytes",
            "not_compact": "tensorflow refuses what is not C-contiguous",
            "read_only": "tensorflow takes legacy capsules, which cannot say that memory is "
            "read-only",
        },
    ),
    Library(
        name="cupy",
        object="cupy.ndarray",
        legacy_writable=True,
        capabilities=_cupy_now,
        take="cupy:from_dlpack",
        take_host=_to_cupy,
        quirks={
            "no_way_to_device": "cupy takes no memory of the host",
            "other_device": "cupy takes no memory of the host: it is copied to the GPU",
            "read_only": "cupy drops the read-only flag",
        },
    ),
    Library(
        name="paddle",
        object="paddle.Tensor",
        legacy_writable=True,
        read=_read_paddle,
        conditions=_conditions_of_paddle,
        fixes={"in_graph": "x.detach()", "negative_strides": "x.contiguous()"},
        capabilities=Capabilities(
            result="paddle.Tensor",
            devices=("cpu", "cuda"),
            dtypes=(
                "bool",
                *INTEGERS,
                "uint8",
                *FLOATS,
                *COMPLEX,
                "bfloat16",
                "float8_e4m3fn",
                "float8_e5m2",
            ),
            strides="non-negative",
            max_dimensions=9,
        ),
        take=_to_paddle,
        address=_pointer_method,
        quirks={
            "always": "paddle ignores byte_offset (it is applied before), leaks 80 bytes for each "
            "tensor that it takes, and loses a deleter where it takes the same memory twice (it is "
            "given a view of what it has)",
            "negative_strides": "paddle takes negative strides, and fails when they are read",
            "missing_dtype": "paddle has no unsigned types beyond uint8, and takes uint16 for "
            "bfloat16",
            "read_only": "paddle drops the read-only flag",
        },
    ),
    Library(
        name="mlx",
        object="mlx.core.array",
        capabilities=Capabilities(
            result="mlx.core.array",
            dtypes=(
                "bool",
                *INTEGERS,
                *UNSIGNED,
                "float16",
                "float32",
                "complex64",
                "bfloat16",
            ),
            strides="non-negative",
            copies=True,
        ),
        take="mlx.core:from_dlpack",
        quirks={
            "copies_in": "mlx copies what it takes on the processor, whatever copy= says",
            "missing_dtype": "mlx turns float64 into float32 and complex128 into complex64 without "
            "a word",
            "negative_strides": "mlx refuses negative strides",
        },
    ),
    Library(
        name="dpnp",
        modules=("dpnp", "dpctl"),
        object="dpnp.ndarray",
        capabilities=_dpnp_now,
        take="dpnp:from_dlpack",
        take_host=_to_dpnp,
        quirks={
            "other_device": "dpnp.from_dlpack gives a NumPy array for memory of the host, and "
            "ignores its byte_offset; it is copied to a device instead",
            "no_way_to_device": "dpnp finds no SYCL device",
        },
    ),
    Library(
        name="pyarrow",
        read=_read_arrow,
        fixes={"read_only": "x.to_numpy(zero_copy_only=False).copy()"},
        capabilities=Capabilities(
            result="pyarrow.Tensor",
            dtypes=(*INTEGERS, *UNSIGNED, *FLOATS),
            strides="non-negative",
            read_only="honours",
        ),
        take="pyarrow:Tensor.from_dlpack",
        address=_pointer_in_dlpack,
        quirks={
            "missing_dtype": "pyarrow's DLPack has no bool, no complex and no bfloat16",
            "negative_strides": "pyarrow refuses negative strides",
        },
    ),
    Library(
        name="pyarrow.Array",
        capabilities=Capabilities(
            result="pyarrow.Array",
            dtypes=(*INTEGERS, *UNSIGNED, *FLOATS),
            strides="compact",
            min_dimensions=1,
            max_dimensions=1,
            read_only="honours",
            writable=False,
        ),
        take="pyarrow:Array.from_dlpack",
        address=_pointer_in_dlpack,
    ),
    Library(
        name="warp",
        object="warp.array",
        legacy_writable=True,
        fixes={"read_only": "warp.clone(x)"},
        capabilities=Capabilities(
            result="warp.array",
            devices=("cpu", "cuda"),
            dtypes=("bool", *INTEGERS, *UNSIGNED, *FLOATS, "bfloat16"),
            min_dimensions=1,
            max_dimensions=4,
        ),
        take=_to_warp,
        address=lambda result: int(result.ptr or 0),
        quirks={
            "always": "warp ignores byte_offset and lanes; offsets are applied before, and types "
            "with lanes refused",
            "read_only": "warp asks for legacy capsules, which cannot say that memory is read-only",
        },
    ),
    Library(
        name="onnxruntime",
        object="onnxruntime.OrtValue",
        legacy_writable=True,
        capabilities=Capabilities(
            result="onnxruntime.OrtValue",
            dtypes=("bool", *INTEGERS, *UNSIGNED, *FLOATS, "bfloat16", *FLOAT8),
            strides="compact",
        ),
        take="onnxruntime:OrtValue.from_dlpack",
        address=_pointer_method,
        quirks={
            "not_compact": "onnxruntime refuses what is not C-contiguous",
            "read_only": "onnxruntime asks for legacy capsules, which cannot say that memory is "
            "read-only",
        },
    ),
    Library(
        name="tvm_ffi",
        modules=("tvm_ffi", "tvm"),
        object="tvm_ffi.Tensor",
        legacy_writable=True,
        capabilities=Capabilities(result="tvm_ffi.Tensor", devices=None),
        take="tvm_ffi:from_dlpack",
        address=_pointer_in_dlpack,
        quirks={
            "always": "tvm_ffi takes exchange tables first, and checks neither graph nor bits of a "
            "torch tensor there; dlbridge does before",
            "read_only": "tvm_ffi loses the read-only flag",
        },
    ),
    Library(
        name="cuda.core",
        modules=("cuda",),
        object="cuda.core.StridedMemoryView",
        capabilities=Capabilities(
            result="cuda.core.StridedMemoryView",
            dtypes=PLAIN,
            read_only="honours",
        ),
        take=_to_strided_memory_view,
        address=lambda result: int(result.ptr),
    ),
    Library(
        name="max",
        object="max.driver.Buffer",
        legacy_writable=True,
        read=_read_max,
        conditions=_conditions_of_max,
        fixes={"copies_out": "x.contiguous()"},
        capabilities=Capabilities(
            result="max.driver.Buffer",
            dtypes=(
                "bool",
                *INTEGERS,
                *UNSIGNED,
                *FLOATS,
                "bfloat16",
                "float8_e4m3fn",
                "float8_e4m3fnuz",
                "float8_e5m2",
                "float8_e5m2fnuz",
            ),
            strides="compact",
        ),
        take="max.driver:Buffer.from_dlpack",
        address=lambda result: int(result._data_ptr()),
        quirks={
            "always": "max ignores byte_offset, which is applied before",
            "not_compact": "max ignores strides, and would compute with other elements",
            "read_only": "max takes legacy capsules, which cannot say that memory is read-only",
        },
    ),
    Library(
        name="drjit",
        capabilities=Capabilities(
            result="drjit.llvm.TensorX",
            dtypes=tuple(_DRJIT),
            strides="compact",
        ),
        take=_to_drjit,
        address=_pointer_in_dlpack,
        quirks={
            "not_compact": "drjit refuses what is not C-contiguous",
            "read_only": "drjit drops the read-only flag",
        },
    ),
    Library(
        name="array_api_strict",
        object="array_api_strict.Array",
        capabilities=Capabilities(
            result="array_api_strict.Array",
            dtypes=("bool", *INTEGERS, *UNSIGNED, "float32", "float64", *COMPLEX),
            read_only="honours",
        ),
        take="array_api_strict:from_dlpack",
        address=_pointer_of_strict,
    ),
    *_buffers.LIBRARIES,
)
