"""numpy_function: a function of NumPy arrays that takes tensors, with a gradient if it has one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from dlbridge.functions.agnostic import accepts
from dlbridge.functions.array_function import ArrayFunction

_Gradient = TypeVar("_Gradient", bound=Callable[..., Any])


class NumpyFunction(ArrayFunction):
    """A function of NumPy arrays that takes tensors. Made by ``dlbridge.numpy_function``."""

    def __init__(
        self,
        function: Callable[..., Any],
        returns: Any,
        differentiable: bool,
        gradient: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(function, returns, differentiable)
        self.gradient = gradient
        self.compiled: Any = None  # torch's custom operator, where the outputs are declared
        self._declare()

    def _declare(self) -> None:
        """The operator has to be there before torch.compile comes by."""
        if self.returns is not None and "torch" in sys.modules:
            from dlbridge.functions import by_torch

            self.compiled = by_torch.operator_of(self)

    def backward(self, gradient: _Gradient) -> _Gradient:
        """Gives the function its gradient, written in NumPy.

        ``gradient(context, *gradients)``: a gradient of each output in, a gradient of each
        argument out; None for an argument that has none. See ``Context``.
        """
        self.gradient = gradient
        self._remade = None  # it has no gradient
        self._declare()
        return gradient

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None:
            if self.compiled is not None and torch.compiler.is_compiling():
                outputs = self.compiled(*arguments, **named)
                return tuple(outputs) if len(outputs) > 1 else outputs[0]
            from dlbridge.functions import by_torch

            if by_torch.concerns(arguments, named):
                return by_torch.call(self, arguments, named)
        jax = sys.modules.get("jax")
        if jax is not None and any(
            isinstance(each, jax.Array) for each in (*arguments, *named.values())
        ):
            from dlbridge.functions import by_jax

            return by_jax.call(self, arguments, named)
        return accepts("numpy")(self.function)(*self.positional(arguments, named))

    def parts(self) -> tuple[Any, ...]:
        options = self.returns, self.differentiable, self.gradient
        return NumpyFunction, (self.function, *options)

    def __repr__(self) -> str:
        return f"<dlbridge.numpy_function {self.__module__}.{self.__qualname__}>"


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
