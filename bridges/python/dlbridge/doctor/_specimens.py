"""How the doctor makes a tensor of each library, and has the library itself read it back."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dlbridge
from dlbridge import libraries


def _by_dlpack(result: Any) -> Any:
    """By NumPy; what lies on a SYCL device by dpnp, the one that reads it."""
    if result.__dlpack_device__()[0] == 14:
        return dlbridge.to(result, "dpnp").asnumpy()
    return np.from_dlpack(result)


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One library, as the doctor handles it.

    ``module`` tells whether it is installed, ``distributions`` its version. ``make(array)`` gives
    the library's own object with those values, made by its own means where it has them;
    ``values(x)`` is the library's own reading of it. ``take`` is its DLPack import without
    dlbridge, None where it has none. ``part(x)`` is a view of x without its first row.
    """

    name: str
    module: str
    distributions: tuple[str, ...] = ()
    make: Callable[[Any], Any] | None = None
    values: Callable[[Any], Any] = np.asarray
    take: Callable[[Any], Any] | None = None
    part: Callable[[Any], Any] | None = None
    write: Callable[[Any], Any] | None = None

    @property
    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except ImportError:
            return False

    @property
    def version(self) -> str:
        for name in (*self.distributions, self.name):
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return ""


def _lazily(path: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        module, _, name = path.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found(*arguments, **keywords)

    return call


def _method(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(x, name)()


def _without_first(x: Any) -> Any:
    return x[1:]


def _take_tensorflow(producer: Any) -> Any:
    return _lazily("tensorflow:experimental.dlpack.from_dlpack")(producer.__dlpack__())


def _take_view(producer: Any) -> Any:
    return _lazily("cuda.core.utils:StridedMemoryView.from_dlpack")(producer, -1)


def _take_drjit(producer: Any) -> Any:
    return _lazily("drjit.llvm:TensorXf")(producer)


def _take_warp(producer: Any) -> Any:
    warp = importlib.import_module("warp")
    warp.config.quiet = True
    warp.init()
    return warp.from_dlpack(producer)


def _make_warp(array: Any) -> Any:
    warp = importlib.import_module("warp")
    warp.config.quiet = True
    return warp.array(array, device="cpu")


def _fill(x: Any) -> Any:
    x[...] = 9


SPECIMENS: tuple[Specimen, ...] = (
    Specimen(
        name="numpy",
        module="numpy",
        make=np.array,
        take=np.from_dlpack,
        part=_without_first,
        write=_fill,
    ),
    Specimen(
        name="torch",
        module="torch",
        make=_lazily("torch:tensor"),
        values=_method("numpy"),
        take=_lazily("torch:from_dlpack"),
        part=_without_first,
        write=_method("zero_"),
    ),
    Specimen(
        name="dlbridge",
        module="dlbridge",
        values=_by_dlpack,
        make=lambda array: dlbridge.from_dlpack(np.array(array)),
        take=dlbridge.from_dlpack,
        write=lambda x: dlbridge.to_numpy(x).fill(9),
    ),
    Specimen(
        name="jax",
        module="jax",
        make=_lazily("jax.numpy:asarray"),
        take=_lazily("jax.dlpack:from_dlpack"),
        part=_without_first,
    ),
    Specimen(
        name="tensorflow",
        module="tensorflow",
        distributions=("tensorflow-cpu", "tensorflow"),
        make=_lazily("tensorflow:constant"),
        values=_method("numpy"),
        take=_take_tensorflow,
        part=_without_first,
    ),
    Specimen(
        name="paddle",
        module="paddle",
        distributions=("paddlepaddle", "paddlepaddle-gpu"),
        make=_lazily("paddle:to_tensor"),
        values=_method("numpy"),
        take=_lazily("paddle.utils.dlpack:from_dlpack"),
        part=_without_first,
        write=_method("zero_"),
    ),
    Specimen(
        name="mlx",
        module="mlx.core",
        make=_lazily("mlx.core:array"),
        take=_lazily("mlx.core:from_dlpack"),
        part=_without_first,
    ),
    Specimen(
        name="dpnp",
        module="dpnp",
        make=_lazily("dpnp:asarray"),
        values=lambda x: x if isinstance(x, np.ndarray) else x.asnumpy(),
        take=_lazily("dpnp:from_dlpack"),
        part=_without_first,
        write=_fill,
    ),
    Specimen(
        name="cupy",
        module="cupy",
        distributions=("cupy-cuda12x", "cupy-cuda13x", "cupy"),
        make=_lazily("cupy:asarray"),
        values=_lazily("cupy:asnumpy"),
        take=_lazily("cupy:from_dlpack"),
        part=_without_first,
    ),
    Specimen(
        name="pyarrow",
        module="pyarrow",
        make=_lazily("pyarrow:Tensor.from_numpy"),
        values=_method("to_numpy"),
        take=_lazily("pyarrow:Tensor.from_dlpack"),
        write=lambda x: x.to_numpy().fill(9),
    ),
    Specimen(
        name="warp",
        module="warp",
        distributions=("warp-lang",),
        make=_make_warp,
        values=_method("numpy"),
        take=_take_warp,
        part=_without_first,
        write=_method("zero_"),
    ),
    Specimen(
        name="onnxruntime",
        module="onnxruntime",
        make=_lazily("onnxruntime:OrtValue.ortvalue_from_numpy"),
        values=_method("numpy"),
        take=_lazily("onnxruntime:OrtValue.from_dlpack"),
    ),
    Specimen(
        name="tvm_ffi",
        module="tvm_ffi",
        distributions=("apache-tvm-ffi",),
        make=lambda array: _lazily("tvm_ffi:from_dlpack")(np.array(array)),
        values=_by_dlpack,
        take=_lazily("tvm_ffi:from_dlpack"),
    ),
    Specimen(
        name="cuda.core",
        module="cuda.core",
        distributions=("cuda-core",),
        make=lambda array: _take_view(np.array(array)),
        values=_by_dlpack,
        take=_take_view,
    ),
    Specimen(
        name="max",
        module="max.driver",
        make=lambda array: _lazily("max.driver:Buffer.from_numpy")(np.array(array)),
        values=_method("to_numpy"),
        take=_lazily("max.driver:Buffer.from_dlpack"),
        part=lambda x: x[1:, :] if x.rank == 2 else x[1:],
    ),
    Specimen(
        name="drjit",
        module="drjit",
        make=lambda array: _lazily("drjit.llvm:TensorXf")(np.array(array)),
        values=_method("numpy"),
        take=_take_drjit,
    ),
    Specimen(
        name="array_api_strict",
        module="array_api_strict",
        distributions=("array-api-strict",),
        make=_lazily("array_api_strict:asarray"),
        values=_by_dlpack,
        take=_lazily("array_api_strict:from_dlpack"),
        part=lambda x: x[1:, ...],
        write=_fill,
    ),
    Specimen(
        name="memoryview",
        module="builtins",
        make=lambda array: memoryview(np.array(array)),  # type: ignore[arg-type,unused-ignore]
        part=_without_first,
    ),
    Specimen(name="array", module="array"),
    Specimen(name="ctypes", module="ctypes"),
    Specimen(
        name="PIL",
        module="PIL",
        distributions=("pillow",),
        make=_lazily("PIL.Image:fromarray"),
    ),
)


def specimens() -> dict[str, Specimen]:
    """Of every library that is installed: those above, and whatever else is registered."""
    found = {each.name: each for each in SPECIMENS if each.installed}
    for library in libraries.known():
        module = (library.modules or (library.name,))[0]
        known = any(library.name.startswith(each.name) for each in SPECIMENS)
        if library.is_target and not known:
            other = Specimen(name=library.name, module=module, values=dlbridge.to_numpy)
            if other.installed:
                found[library.name] = other
    return found


def make(specimen: Specimen, array: Any) -> Any:
    """The library's object with these values: by its own means, or by ours where it has none."""
    if specimen.make is not None:
        return specimen.make(array)
    return dlbridge.to(array, specimen.name, copy=True)
