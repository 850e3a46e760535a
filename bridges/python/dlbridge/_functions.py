"""Functions of one library's arrays, called with another's: with gradients where they are given."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from dlbridge import _core
from dlbridge.ledger import caller
from dlbridge._namespace import accepts
from dlbridge._trees import is_array, leaves, mapped

_Array = npt.NDArray[Any]
_Gradient = TypeVar("_Gradient", bound=Callable[..., Any])


class Context(NamedTuple):
    """What a gradient in NumPy is made from.

    ``inputs`` are the arguments as the function had them, arrays read-only; ``outputs`` what it
    gave, a tuple; ``needed`` says of each argument whether a gradient is asked for.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[_Array, ...]
    needed: tuple[bool, ...]


class NotDifferentiable(UserWarning):
    """A function without a gradient was called in a graph: its outputs do not require grad."""


NotDifferentiable.__module__ = "dlbridge"  # where it is public


class NumpyFunction:
    """A function of NumPy arrays that takes tensors. Made by ``dlbridge.numpy_function``."""

    def __init__(
        self,
        function: Callable[..., Any],
        returns: Any = None,
        differentiable: bool = True,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"numpy_function() takes a function, not {type(function).__name__}; its options "
                "go by name: @dlbridge.numpy_function(returns=...)"
            )
        self.function = function
        self.signature = _signature_of(function)
        self.returns = returns
        self.differentiable = differentiable
        self.gradient: Callable[..., Any] | None = None
        self.compiled: Any = None  # torch's custom operator, where the outputs are declared
        functools.update_wrapper(self, function)
        self._declare()

    def _declare(self) -> None:
        """The operator has to be there before torch.compile comes by."""
        if self.returns is not None and "torch" in sys.modules:
            from dlbridge import _functions_torch

            self.compiled = _functions_torch.operator_of(self)

    def backward(self, gradient: _Gradient) -> _Gradient:
        """Gives the function its gradient, written in NumPy.

        ``gradient(context, *gradients)``: a gradient of each output in, a gradient of each
        argument out; None for an argument that has none. See ``Context``.
        """
        self.gradient = gradient
        self._declare()
        return gradient

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None:
            if self.compiled is not None and torch.compiler.is_compiling():
                outputs = self.compiled(*arguments, **named)
                return tuple(outputs) if len(outputs) > 1 else outputs[0]
            from dlbridge import _functions_torch

            if _functions_torch.concerns(arguments, named):
                return _functions_torch.call(self, arguments, named)
        jax = sys.modules.get("jax")
        if jax is not None and any(
            isinstance(each, jax.Array) for each in (*arguments, *named.values())
        ):
            from dlbridge import _functions_jax

            return _functions_jax.call(self, arguments, named)
        return accepts("numpy")(self.function)(*self.positional(arguments, named))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    __name__: str
    __qualname__: str

    def __reduce__(self) -> str:
        # By name, as functions are: so that a worker of a DataLoader finds it.
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<dlbridge.numpy_function {self.__module__}.{self.__qualname__}>"

    # What the bridges to torch and JAX share.

    def positional(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the signature, defaults filled in."""
        for each in (*arguments, *named.values()):
            if isinstance(each, (list, tuple, dict)) and any(map(is_array, leaves(each))):
                raise TypeError(
                    f"{self.__qualname__}() got arrays inside of a {type(each).__name__}, where "
                    "autograd cannot follow them; give each as an argument of its own, or use "
                    'dlbridge.accepts("numpy"), which takes trees and knows no gradients'
                )
        if not named and len(arguments) == len(self.signature.parameters):
            return arguments
        bound = self.signature.bind(*arguments, **named)
        only = ", ".join(bound.kwargs)
        if only:
            raise TypeError(
                f"{self.__qualname__}() takes {only} by name only, and numpy_function() passes "
                "arguments by position; drop the * from its signature"
            )
        bound.apply_defaults()
        return bound.args

    def declared(self, arguments: tuple[Any, ...]) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each output for arguments that have a shape and a dtype."""
        rule = self.returns
        if isinstance(rule, str):
            names = list(self.signature.parameters)
            if rule not in names:
                listed = ", ".join(repr(name) for name in names)
                raise ValueError(f"returns={rule!r} names no argument; use one of {listed}")
            like = arguments[names.index(rule)]
            found: Any = (like.shape, like.dtype)
        else:
            found = rule(*arguments)
        many = found if isinstance(found, list) else [found]
        return [(tuple(shape), dtype) for shape, dtype in many]

    def run(self, inputs: tuple[Any, ...]) -> tuple[_Array, ...]:
        """The outputs on arrays. A tuple of one is one output."""
        found = self.function(*inputs)
        several = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(_output(self, each, inputs) for each in several)

    def run_gradient(
        self,
        inputs: tuple[Any, ...],
        outputs: tuple[_Array, ...],
        needed: tuple[bool, ...],
        gradients: tuple[_Array, ...],
    ) -> list[_Array | None]:
        """A gradient for each argument, checked against its shape."""
        assert self.gradient is not None
        found = self.gradient(Context(inputs, outputs, needed), *gradients)
        several = found if isinstance(found, (tuple, list)) else (found,)
        if len(several) != len(inputs):
            raise ValueError(
                f"the gradient of {self.__qualname__}() gave {len(several)} values for "
                f"{len(inputs)} arguments; it has to give one for each, None where there is none"
            )
        checked: list[_Array | None] = []
        for each, given, asked in zip(several, inputs, needed, strict=True):
            if not asked:
                checked.append(None)
                continue
            if each is None:
                checked.append(np.zeros_like(given))
                continue
            array = np.asarray(each)
            if array.shape != given.shape:
                raise ValueError(
                    f"the gradient of {self.__qualname__}() has shape {array.shape} for an "
                    f"argument of shape {given.shape}; it has to have the argument's"
                )
            array = array.astype(given.dtype, copy=False)
            checked.append(_apart(array, (*inputs, *outputs, *gradients)))
        return checked


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # written in C, and does not say
        return inspect.signature(lambda *arguments: None)


def _output(function: NumpyFunction, value: Any, inputs: tuple[Any, ...]) -> _Array:
    if not is_array(value) and not isinstance(value, (np.generic, float, int, complex)):
        raise TypeError(
            f"{function.__qualname__}() gave a {type(value).__name__}; a numpy_function() gives an "
            'array, or a tuple of them (dlbridge.accepts("numpy") takes any answer)'
        )
    return _apart(np.asarray(value), inputs)


def _apart(array: _Array, others: tuple[Any, ...]) -> _Array:
    """The array, or a copy where it may share memory with one of the others: tensors would then be
    views of one another, and autograd not know of it."""
    for other in others:
        if isinstance(other, np.ndarray) and np.may_share_memory(array, other):
            return np.array(array)
    return array


def read_only(x: Any) -> Any:
    """``x`` as the array that a function may look at, if it is an array of any library."""
    if not is_array(x):
        return x
    array = _core.to_numpy(x)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


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
    if function is None:
        return lambda given: NumpyFunction(given, returns, differentiable)
    return NumpyFunction(function, returns, differentiable)


class TorchFunction:
    """A function of tensors that takes arrays. Made by ``dlbridge.torch_function``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._accepting = accepts("torch")(function)
        functools.update_wrapper(self, function)

    __qualname__: str

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._accepting(*arguments, **named)

    def with_gradient(self, *arguments: Any, **named: Any) -> tuple[Any, tuple[Any, ...]]:
        """The value, a number, and its gradient by each argument; None where there is none.

        What ``scipy.optimize.minimize(..., jac=True)`` wants of its function.
        """
        import torch

        tensors = tuple(_leaf(each) if is_array(each) else each for each in arguments)
        wanted = [each for each in tensors if isinstance(each, torch.Tensor) and each.requires_grad]
        with torch.enable_grad():
            value = self.function(*tensors, **named)
            found = iter(torch.autograd.grad(value, wanted, allow_unused=True))
        gradients: list[Any] = []
        for given, tensor in zip(arguments, tensors, strict=True):
            if not (isinstance(tensor, torch.Tensor) and tensor.requires_grad):
                gradients.append(None)
                continue
            gradient = next(found)
            if gradient is None:
                gradient = torch.zeros_like(tensor)
            gradients.append(_back(gradient, given))
        first = next(each for each in arguments if is_array(each))
        return _back(value.detach(), first), tuple(gradients)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<dlbridge.torch_function {self.__module__}.{self.__qualname__}>"


def _leaf(x: Any) -> Any:
    tensor = _core.to_torch(x)
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.detach().requires_grad_()


def _back(tensor: Any, like: Any) -> Any:
    from dlbridge._namespace import returns_like

    answer = returns_like(like)(tensor)
    return answer[()] if isinstance(answer, np.ndarray) and answer.ndim == 0 else answer


def torch_function(function: Callable[..., Any]) -> TorchFunction:
    """Turns a function of torch tensors into a function of arrays of any library.

    Arguments may be trees. Arrays cross as views; the answer comes back in the library of the first
    array, sharing memory. ``f.with_gradient(...)`` gives the gradients by the arguments as well,
    by torch's autograd.
    """
    return TorchFunction(function)


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
    import torch

    if isinstance(function, NumpyFunction) and function.gradient is None:
        raise ValueError(
            f"{function.__qualname__}() has no gradient to check; give it one with "
            f"@{function.__name__}.backward"
        )

    def double(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        tensor = _core.to_torch(leaf).detach()
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        return tensor.to("cpu", wide, copy=True).requires_grad_()

    return bool(
        torch.autograd.gradcheck(
            function,
            mapped(inputs, double),
            eps=eps,
            atol=atol,
            rtol=rtol,
            raise_exception=raise_exception,
        )
    )


_warned: dict[Any, Any] = {}  # where the warning was given already, as warnings keeps it


def warn_not_differentiable(function: NumpyFunction) -> None:
    if function.differentiable:
        file, line, _ = caller()
        warnings.warn_explicit(
            f"{function.__qualname__}() has no gradient, so its outputs do not require grad; write "
            f"@{function.__name__}.backward, or say numpy_function(differentiable=False)",
            NotDifferentiable,
            file,
            line,
            registry=_warned,
        )
