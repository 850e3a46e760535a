"""Torch tensors of every kind that the policy table knows, each with the array it must become.

A source is a context manager (some only exist inside a mode) that yields the tensor and the
expected array, or None where no conversion is right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from dlb_support import NUMPY_2
from torch._C import _functorch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._mode_utils import no_dispatch

with warnings.catch_warnings():  # torch's own imports warn; later make_dual would do this
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

Pair = tuple[Any, np.ndarray | None]
Make = Callable[[], AbstractContextManager[Pair]]
SOURCES: dict[str, Make] = {}
MOST_DIMS = (1,) * (64 if NUMPY_2 else 32)
VALUES = np.arange(3, 15, dtype="f4").reshape(3, 4)


def source(name: str) -> Callable[[Callable[[], Iterator[Pair]]], None]:
    def keep(function: Callable[[], Iterator[Pair]]) -> None:
        SOURCES[name] = contextmanager(function)

    return keep


def simple(
    name: str, make: Callable[[], Any], expected: Callable[[], np.ndarray] | None = None
) -> None:
    @contextmanager
    def build() -> Iterator[Pair]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # prototypes warn (sparse CSR, nested, quantised)
            tensor = make()
        yield tensor, None if expected is None else expected()

    SOURCES[name] = build


def values() -> torch.Tensor:
    return torch.from_numpy(VALUES.copy())


# --- plain --------------------------------------------------------------------------------------
simple("plain", values, VALUES.copy)
simple("transposed", lambda: values().t(), lambda: VALUES.T)
simple("offset slice", lambda: values()[1:, 2:], lambda: VALUES[1:, 2:])
simple("stepped", lambda: values()[::2, ::3], lambda: VALUES[::2, ::3])
simple("0-d", lambda: torch.tensor(3.5), lambda: np.array(3.5, "f4"))
simple("bool", lambda: values() > 6, lambda: VALUES > 6)
simple("int64", lambda: values().long(), lambda: VALUES.astype("i8"))
simple("uint16", lambda: values().to(torch.uint16), lambda: VALUES.astype("u2"))
simple("float16", lambda: values().half(), lambda: VALUES.astype("f2"))
# Before torch 2.5 it is a tensor like any other.
buffer = getattr(torch.nn, "Buffer", torch.clone)
simple("buffer of a module", lambda: buffer(values()), VALUES.copy)
simple("in shared memory", lambda: values().share_memory_(), VALUES.copy)
simple("most dims", lambda: torch.full(MOST_DIMS, 3.0), lambda: np.full(MOST_DIMS, 3, "f4"))
simple("zero stride of size 1", lambda: values()[:, :1].expand(3, 1), lambda: VALUES[:, :1])


@source("complex128")
def _complex() -> Iterator[Pair]:
    array = (VALUES * (1 + 2j)).astype("c16")
    yield torch.from_numpy(array.copy()), array


class PlainSubclass(torch.Tensor):
    """Behaves like its parent: no dispatch of its own."""


simple("plain subclass", lambda: values().as_subclass(PlainSubclass), VALUES.copy)


@source("inference tensor")
def _inference() -> Iterator[Pair]:
    with torch.inference_mode():
        tensor = torch.arange(12.0) + 3
    assert tensor.is_inference()
    yield tensor, np.arange(3, 15, dtype="f4")


# --- in a graph ---------------------------------------------------------------------------------
def leaf() -> torch.Tensor:
    return values().requires_grad_()


simple("graph: leaf", leaf, VALUES.copy)
simple("graph: parameter", lambda: torch.nn.Parameter(values()), VALUES.copy)
simple("graph: non-leaf", lambda: leaf() * 2, lambda: VALUES * 2)
simple("graph: view of a leaf", lambda: leaf()[1:], lambda: VALUES[1:])


@source("graph: leaf under no_grad")
def _no_grad() -> Iterator[Pair]:
    tensor = leaf()
    with torch.no_grad():
        yield tensor, VALUES.copy()


@source("graph: leaf under inference_mode")
def _inference_mode() -> Iterator[Pair]:
    tensor = leaf()
    with torch.inference_mode():
        yield tensor, VALUES.copy()


@source("forward dual")
def _dual() -> Iterator[Pair]:
    with forward_ad.dual_level():
        yield forward_ad.make_dual(values(), torch.ones(3, 4)), VALUES.copy()


# --- lazy bits ----------------------------------------------------------------------------------
Z = (VALUES + 1j * VALUES[::-1]).astype("c8")
simple("conj", lambda: torch.from_numpy(Z.copy()).conj(), lambda: Z.conj())
simple("neg", lambda: torch.from_numpy(Z.copy()).conj().imag, lambda: -Z.imag.copy())
simple(
    "conj and neg", lambda: torch._neg_view(torch.from_numpy(Z.copy()).conj()), lambda: -Z.conj()
)
simple("zero tensor", lambda: torch._efficientzerotensor((3, 4)), lambda: np.zeros((3, 4), "f4"))
simple(
    "conj in a graph", lambda: torch.from_numpy(Z.copy()).requires_grad_().conj(), lambda: Z.conj()
)


# --- layouts that have no strides ---------------------------------------------------------------
EYE = np.eye(4, dtype="f4")
simple("sparse coo", lambda: torch.eye(4).to_sparse(), EYE.copy)
simple("sparse csr", lambda: torch.eye(4).to_sparse_csr(), EYE.copy)
simple("sparse csc", lambda: torch.eye(4).to_sparse_csc(), EYE.copy)
simple("sparse bsr", lambda: torch.eye(4).to_sparse_bsr((2, 2)), EYE.copy)
simple("mkldnn", lambda: values().to_mkldnn(), VALUES.copy)
simple("quantised", lambda: torch.quantize_per_tensor(values(), 0.5, 3, torch.quint8))
simple(
    "quantised per channel",
    lambda: torch.quantize_per_channel(values(), torch.ones(3), torch.zeros(3), 0, torch.qint8),
)
simple("nested strided", lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
simple(
    "nested jagged",
    lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
)


# --- no storage of its own ----------------------------------------------------------------------
simple("meta", lambda: torch.ones(3, 4, device="meta"))
simple("uninitialised", torch.nn.UninitializedParameter)
simple("functionalised", lambda: torch._to_functional_tensor(values()))


@source("fake")
def _fake() -> Iterator[Pair]:
    with FakeTensorMode():
        tensor = torch.ones(3, 4)
    yield tensor, None


@source("fake inside its mode")
def _fake_inside() -> Iterator[Pair]:
    with FakeTensorMode():
        yield torch.ones(3, 4), None


def wrapped_by(transform: Callable[..., Any]) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return (tensor * 2).sum()

    transform(keep)(torch.ones(3))
    return seen[0]


@contextmanager
def inside(transform: Callable[..., Any], shape: tuple[int, ...]) -> Iterator[Pair]:
    """The wrapper while its transform runs: the level is on functorch's stack, as when a user's
    function converts its argument."""
    tensor = torch.ones(shape)
    if transform is torch.func.vmap:
        level = _functorch._vmap_increment_nesting(shape[0], "error")
        try:
            yield _functorch._add_batch_dim(tensor, 0, level), None
        finally:
            _functorch._vmap_decrement_nesting()
    else:
        level = _functorch._grad_increment_nesting()
        try:
            yield _functorch._wrap_for_grad(tensor, level), None
        finally:
            _functorch._grad_decrement_nesting()


SOURCES["vmap wrapper"] = lambda: inside(torch.func.vmap, (2, 3))
SOURCES["grad wrapper"] = lambda: inside(torch.func.grad, (3,))
simple("vmap wrapper, escaped", lambda: wrapped_by(lambda f: lambda x: torch.func.vmap(f)(x[None])))
simple("grad wrapper, escaped", lambda: wrapped_by(torch.func.grad))


class Wrapper(torch.Tensor):
    """The usual wrapper subclass: a shape without memory, the real tensor in an attribute."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unwrapped = [a.inner if isinstance(a, cls) else a for a in args]
        return func(*unwrapped, **(kwargs or {}))


class Dispatching(torch.Tensor):
    """Real storage, but a dispatch of its own: its memory need not be its meaning."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with no_dispatch():
            made = func(*args, **(kwargs or {}))
            is_plain = isinstance(made, torch.Tensor) and not isinstance(made, cls)
            return torch.Tensor._make_subclass(cls, made) if is_plain else made


simple("wrapper subclass", lambda: Wrapper(values()))
simple(
    "subclass with __torch_dispatch__", lambda: torch.Tensor._make_subclass(Dispatching, values())
)


def with_storage_of(size: int) -> torch.Tensor:
    tensor = values()
    tensor = tensor.clone()  # from_numpy's storage cannot be resized
    tensor.untyped_storage().resize_(size)
    return tensor


simple("freed storage", lambda: with_storage_of(0))
# Not in the table by name: a view that reaches behind its storage is one whose storage was freed.
simple("storage cut short", lambda: with_storage_of(16))


# --- dtypes that NumPy lacks --------------------------------------------------------------------
ML_DTYPES = [
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    *(name for name in ("float8_e8m0fnu",) if hasattr(torch, name)),
]


def bit_patterns(name: str) -> tuple[torch.Tensor, np.ndarray]:
    """Every pattern of the dtype (NaNs of all kinds included), as a tensor and as an array."""
    whole = 2 if name == "bfloat16" else 1
    bits = np.arange(256**whole, dtype=f"u{whole}")
    raw = torch.from_numpy(bits.view("u1").copy())
    return raw.clone().view(getattr(torch, name)), bits.view(getattr(ml_dtypes, name))


for _name in ML_DTYPES:

    @source(_name)
    def _ml(name: str = _name) -> Iterator[Pair]:
        yield bit_patterns(name)


@source("bfloat16 in a graph")
def _bf16_graph() -> Iterator[Pair]:
    tensor = values().bfloat16().requires_grad_()
    yield tensor, VALUES.astype(ml_dtypes.bfloat16)


simple("complex32", lambda: values().to(torch.complex32))
PACKED = {name: name for name in ("int1", "int4", "int7", "uint1", "uint3", "uint7")}
PACKED["float4 pairs"] = "float4_e2m1fn_x2"
for _name, _dtype in PACKED.items():
    if hasattr(torch, _dtype):
        simple(
            _name,
            lambda d=_dtype: torch.arange(8, dtype=torch.uint8).view(getattr(torch, d)),
        )
simple("bits8", lambda: torch.arange(8, dtype=torch.uint8).view(torch.bits8))
simple("65 dims", lambda: torch.ones((1,) * 65))


# --- overlap ------------------------------------------------------------------------------------
simple(
    "expanded",
    lambda: torch.arange(3.0).reshape(3, 1).expand(3, 4),
    lambda: np.repeat(np.arange(3, dtype="f4"), 4).reshape(3, 4),
)
simple(
    "overlapping windows",
    lambda: torch.arange(6.0).as_strided((4, 3), (1, 1)),
    lambda: np.arange(4, dtype="f4")[:, None] + np.arange(3, dtype="f4"),
)


# --- empty --------------------------------------------------------------------------------------
for _shape in ((0,), (0, 3), (3, 0), (2, 0, 5)):
    simple(f"empty {_shape}", lambda s=_shape: torch.empty(s), lambda s=_shape: np.empty(s, "f4"))


# Rows of tables without a source here: of dtypes that came after this torch.
NEWER = {"float8_e8m0fnu", *PACKED} - set(SOURCES)
