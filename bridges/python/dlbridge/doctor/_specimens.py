"""How the doctor makes a tensor of each library, and has the library itself read it back."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter, methodcaller
from pkgutil import resolve_name
from typing import Any

import numpy as np

import dlbridge
from dlbridge import libraries

# What has a library's version, where that is not called as it is.
_DISTRIBUTIONS = {
    "tensorflow": ("tensorflow-cpu",),
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "cupy": ("cupy-cuda12x", "cupy-cuda13x"),
    "warp": ("warp-lang",),
    "tvm_ffi": ("apache-tvm-ffi",),
    "cuda.core": ("cuda-core",),
    "array_api_strict": ("array-api-strict",),
    "PIL": ("pillow",),
}


@dataclass(frozen=True)
class Specimen:
    """One library, as the doctor handles it. A function may be a "module:name" that is imported
    when it is called.

    ``make(array)`` gives the library's own object with those values, made by its own means where it
    has them; ``values(x)`` is the library's own reading of it. ``take`` is its DLPack import
    without dlbridge, None where it has none. ``part(x)`` is a view of x without its first row.
    ``module``, ``name`` by default, tells whether it is installed.
    """

    name: str
    make: Callable[[Any], Any] | str | None = None
    values: Callable[[Any], Any] | str = np.asarray
    take: Callable[[Any], Any] | str | None = None
    part: Callable[[Any], Any] | None = None
    write: Callable[[Any], Any] | None = None
    module: str = ""

    @property
    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module or self.name) is not None
        except ImportError:
            return False

    @property
    def version(self) -> str:
        for name in (*_DISTRIBUTIONS.get(self.name, ()), self.name):
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return ""


def _by_dlpack(result: Any) -> Any:
    """By NumPy; what lies on a SYCL device by dpnp, the one that reads it."""
    if result.__dlpack_device__()[0] == 14:
        return dlbridge.to(result, "dpnp").asnumpy()
    return np.from_dlpack(result)


def _take_tensorflow(producer: Any) -> Any:
    return resolve_name("tensorflow:experimental.dlpack.from_dlpack")(producer.__dlpack__())


def _take_view(producer: Any) -> Any:
    return resolve_name("cuda.core.utils:StridedMemoryView.from_dlpack")(producer, -1)


def _warp() -> Any:
    warp = importlib.import_module("warp")
    warp.config.quiet = True
    warp.init()
    return warp


def _make_warp(array: Any) -> Any:
    return _warp().array(array, device="cpu")


def _take_warp(producer: Any) -> Any:
    return _warp().from_dlpack(producer)


def _of_dpnp(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else x.asnumpy()


def _fill(x: Any) -> Any:
    x[...] = 9


_rest = itemgetter(slice(1, None))
_numpy = methodcaller("numpy")
_to_numpy = methodcaller("to_numpy")
_zero = methodcaller("zero_")

# The library, how it is made, read and taken.
SPECIMENS: tuple[Specimen, ...] = (
    Specimen("numpy", np.array, np.asarray, np.from_dlpack, _rest, _fill),
    Specimen("torch", "torch:tensor", _numpy, "torch:from_dlpack", _rest, _zero),
    Specimen(
        "dlbridge",
        dlbridge.from_dlpack,
        _by_dlpack,
        dlbridge.from_dlpack,
        write=lambda x: dlbridge.to_numpy(x).fill(9),
    ),
    Specimen("jax", "jax.numpy:asarray", np.asarray, "jax.dlpack:from_dlpack", _rest),
    Specimen("tensorflow", "tensorflow:constant", _numpy, _take_tensorflow, _rest),
    Specimen("paddle", "paddle:to_tensor", _numpy, "paddle.utils.dlpack:from_dlpack", _rest, _zero),
    Specimen("mlx", "mlx.core:array", np.asarray, "mlx.core:from_dlpack", _rest, module="mlx.core"),
    Specimen("dpnp", "dpnp:asarray", _of_dpnp, "dpnp:from_dlpack", _rest, _fill),
    Specimen("cupy", "cupy:asarray", "cupy:asnumpy", "cupy:from_dlpack", _rest),
    Specimen(
        "pyarrow",
        "pyarrow:Tensor.from_numpy",
        _to_numpy,
        "pyarrow:Tensor.from_dlpack",
        write=lambda x: x.to_numpy().fill(9),
    ),
    Specimen("warp", _make_warp, _numpy, _take_warp, _rest, _zero),
    Specimen(
        "onnxruntime",
        "onnxruntime:OrtValue.ortvalue_from_numpy",
        _numpy,
        "onnxruntime:OrtValue.from_dlpack",
    ),
    Specimen("tvm_ffi", "tvm_ffi:from_dlpack", _by_dlpack, "tvm_ffi:from_dlpack"),
    Specimen("cuda.core", _take_view, _by_dlpack, _take_view),
    Specimen(
        "max",
        "max.driver:Buffer.from_numpy",
        _to_numpy,
        "max.driver:Buffer.from_dlpack",
        lambda x: x[1:, :] if x.rank == 2 else x[1:],
        module="max.driver",
    ),
    Specimen("drjit", "drjit.llvm:TensorXf", _numpy, "drjit.llvm:TensorXf"),
    Specimen(
        "array_api_strict",
        "array_api_strict:asarray",
        _by_dlpack,
        "array_api_strict:from_dlpack",
        itemgetter((slice(1, None), ...)),
        _fill,
    ),
    Specimen("memoryview", memoryview, part=_rest, module="builtins"),
    Specimen("array"),
    Specimen("ctypes"),
    Specimen("PIL", "PIL.Image:fromarray"),
)


def specimens() -> dict[str, Specimen]:
    """Of every library that is installed: those above, and whatever else is registered."""
    found = {each.name: each for each in SPECIMENS if each.installed}
    for library in libraries.known():
        known = any(library.name.startswith(each.name) for each in SPECIMENS)
        if library.is_target and not known:
            module = (*library.modules, library.name)[0]
            other = Specimen(library.name, values=dlbridge.to_numpy, module=module)
            if other.installed:
                found[library.name] = other
    return found


def make(specimen: Specimen, array: Any) -> Any:
    """The library's object with these values: by its own means, or by ours where it has none."""
    if specimen.make is None:
        return dlbridge.to(array, specimen.name, copy=True)
    return libraries.function_of(specimen.make)(array.copy())


def read(specimen: Specimen, x: Any) -> Any:
    """The values that the library sees, as an array."""
    return np.asarray(libraries.function_of(specimen.values)(x))
