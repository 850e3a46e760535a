"""What ``dlbridge`` shows of this room. What it is made of is imported when it is first called."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import ModuleType

    from dlbridge import Policy
    from dlbridge.functions.numpy_function import NumpyFunction
    from dlbridge.functions.torch_function import TorchFunction


@functools.cache
def _part(name: str) -> Any:
    return importlib.import_module(f"dlbridge.functions.{name}")


def as_namespace(
    target: str | ModuleType, /, *arrays: Any, policy: Policy | str | None = None
) -> tuple[ModuleType, tuple[Any, ...]]:
    """``xp, (x, y) = as_namespace("numpy", x, y)``: the library's functions, and its arrays.

    Arguments may be trees; what is no array stays as it is.
    """
    made: tuple[ModuleType, tuple[Any, ...]]
    made = _part("agnostic").as_namespace(target, *arrays, policy=policy)
    return made


def returns_like(x: Any, /) -> Callable[[Any], Any]:
    """A function that brings an answer to the library and the device of ``x``.

    ``x`` may be a tree: its first array counts. The answer may be one as well; what is neither an
    array nor one of NumPy's numbers stays as it is. JAX without ``jax_enable_x64`` has no 64-bit
    types: there such an answer is cast to 32 bits, as by ``jax.numpy.asarray``.
    """
    made: Callable[[Any], Any] = _part("agnostic").returns_like(x)
    return made


def accepts(
    target: str | ModuleType, /, *, policy: Policy | str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for a function of ``target``'s arrays: it takes arrays of any library.

    Arguments may be trees. The answer comes back in the library, and on the device, of the first
    array among them that is not of ``target``. An argument that is given back comes back as
    itself, or, if it arrived as a copy, with the copy's values. Tensors in a graph arrive as
    read-only views, and the answer has no gradient:
    ``dlbridge.numpy_function`` is for that.
    """
    made: Callable[..., Any] = _part("agnostic").accepts(target, policy=policy)
    return made


def borrow(x: Any, /) -> AbstractContextManager[Any]:
    """``with borrow(tensor) as array:`` lets NumPy write to a torch tensor, and the other way.

    A tensor's array shares its memory. The block counts as one in-place operation on the tensor:
    torch's rules for those decide whether it may begin, a backward that needs the old values
    raises, and one through values that NumPy wrote raises too, since NumPy's work has no gradient.
    Under ``torch.no_grad()`` the writes are taken as they are. After the block the array and the
    views made of it are read-only.

    An array's tensor shares its memory. The array cannot be written to by NumPy meanwhile; after
    the block it can, and the tensor cannot be written to by torch.

    Never copies: what cannot be shared is refused.
    """
    block: AbstractContextManager[Any] = _part("borrow").borrow(x)
    return block


@overload
def numpy_function(function: Callable[..., Any]) -> NumpyFunction: ...
@overload
def numpy_function(
    *, returns: Any = None, differentiable: bool = True
) -> Callable[[Callable[..., Any]], NumpyFunction]: ...
@overload
def numpy_function(
    function: Callable[..., Any], *, returns: Any = None, differentiable: bool = True
) -> NumpyFunction: ...
def numpy_function(
    function: Callable[..., Any] | None = None,
    *,
    returns: Any = None,
    differentiable: bool = True,
) -> Any:
    """Turns a function of NumPy arrays into a function of tensors.

    Inputs cross as read-only views; outputs come back sharing the memory of the arrays that the
    function gave, on the device of the first tensor. ``@f.backward`` gives it a gradient, in NumPy
    too. Without one its outputs do not require grad: a call in a graph warns with
    ``NotDifferentiable``, unless ``differentiable=False`` says that this is meant.

    ``returns`` declares the outputs, for ``torch.compile`` and ``jax.jit``: the name of the
    argument whose shape and dtype the output has, or a function of the arguments that gives
    ``(shape, dtype)``, or a list of those for several outputs.

    Under ``torch.vmap`` the function is called for each item. Under autocast, float16 and bfloat16
    inputs become float32 first.
    """
    make = _part("numpy_function").NumpyFunction
    if function is None:
        return lambda given: make(given, returns, differentiable)
    return make(function, returns, differentiable)


def torch_function(function: Callable[..., Any]) -> TorchFunction:
    """Turns a function of torch tensors into a function of arrays of any library.

    Arguments may be trees. Arrays cross as views; the answer comes back in the library of the first
    array, sharing memory. ``f.with_gradient(...)`` gives the gradients by the arguments as well,
    by torch's autograd.
    """
    made: TorchFunction = _part("torch_function").TorchFunction(function)
    return made


def gradcheck(
    function: Callable[..., Any],
    *inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradient of a function agrees with differences of its values, near ``inputs``.

    The inputs, of any library, are taken in float64 (complex128). Raises
    ``torch.autograd.gradcheck.GradcheckError`` where it does not agree, or, without
    ``raise_exception``, gives False.
    """
    agrees: bool = _part("torch_function").gradcheck(
        function, inputs, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception
    )
    return agrees
