"""numpy_function: a function of NumPy arrays that takes tensors, with a gradient if it has one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from dlbridge.functions.agnostic import accepts
from dlbridge.functions.array_function import ArrayFunction

_Gradient = TypeVar("_Gradient", bound=Callable[..., Any])


_by_torch: Any = None  # imported for the first tensor; an import at each call would take long


def _imported() -> Any:
    global _by_torch
    from dlbridge.functions import by_torch

    _by_torch = by_torch
    return by_torch


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
        """The operator has to be there before torch.compile comes by. A method has none, since no
        operator takes its object."""
        is_method = "self" in self.signature.parameters
        if self.returns is not None and not is_method and "torch" in sys.modules:
            from dlbridge.functions.operators import operator_of

            self.compiled = operator_of(self)

    def backward(self, gradient: _Gradient) -> _Gradient:
        """Gives the function its gradient, written in NumPy.

        ``gradient(context, *gradients)``: a gradient of each output in, a gradient of each
        argument out; None for an argument that has none. See ``Context``.
        """
        if not callable(gradient):
            raise TypeError(f"backward() takes a function, not {type(gradient).__name__}")
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
            for each in (*arguments, *named.values()):
                if isinstance(each, torch.Tensor):
                    return (_by_torch or _imported()).call(self, arguments, named)
        jax = sys.modules.get("jax")
        if jax is not None and any(
            isinstance(each, jax.Array) for each in (*arguments, *named.values())
        ):
            from dlbridge.functions import by_jax

            return by_jax.call(self, arguments, named)
        self.positional(arguments, named)  # refuses what it would refuse of tensors
        return accepts("numpy")(self.function)(*arguments, **named)

    def parts(self) -> tuple[Any, ...]:
        options = self.returns, self.differentiable, self.gradient
        return NumpyFunction, (self.function, *options)

    def __repr__(self) -> str:
        return f"<dlbridge.numpy_function {self.__module__}.{self.__qualname__}>"
