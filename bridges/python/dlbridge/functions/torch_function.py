"""torch_function: a function of torch tensors that takes arrays; and gradcheck."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from dlbridge import to_torch
from dlbridge.functions.agnostic import accepts, returns_like
from dlbridge.functions.array_function import ArrayFunction
from dlbridge.functions.sending import Wrapped
from dlbridge.trees import is_array, mapped


class TorchFunction(Wrapped):
    """A function of tensors that takes arrays. Made by ``dlbridge.torch_function``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.function = function
        self._accepting = accepts("torch")(function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._accepting(*arguments, **named)

    def with_gradient(self, *arguments: Any, **named: Any) -> tuple[Any, tuple[Any, ...]]:
        """The value, a number, and its gradient by each argument; None where there is none.

        What ``scipy.optimize.minimize(..., jac=True)`` wants of its function.
        """
        import torch

        tensors = tuple(_leaf(each) if is_array(each) else each for each in arguments)
        asked = [isinstance(each, torch.Tensor) and each.requires_grad for each in tensors]
        wanted = list(itertools.compress(tensors, asked))
        with torch.enable_grad():
            value = self.function(*tensors, **named)
            found = iter(torch.autograd.grad(value, wanted, materialize_grads=True))
        gradients = tuple(
            _back(next(found), each) if wants else None
            for each, wants in zip(arguments, asked, strict=True)
        )
        first = next(each for each in arguments if is_array(each))
        return _back(value.detach(), first), gradients

    def parts(self) -> tuple[Any, ...]:
        return TorchFunction, (self.function,)

    def __repr__(self) -> str:
        return f"<dlbridge.torch_function {self.__module__}.{self.__qualname__}>"


def _leaf(x: Any) -> Any:
    tensor = to_torch(x)
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.detach().requires_grad_()


def _back(tensor: Any, like: Any) -> Any:
    answer = returns_like(like)(tensor)
    return answer[()] if isinstance(answer, np.ndarray) and answer.ndim == 0 else answer


def gradcheck(function: Callable[..., Any], inputs: tuple[Any, ...], **options: Any) -> bool:
    import torch

    if isinstance(function, ArrayFunction) and function.gradient is None:
        raise ValueError(
            f"{function.__qualname__}() has no gradient to check; give it one with "
            f"@{function.__name__}.backward"
        )

    def double(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        tensor = to_torch(leaf).detach()
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        return tensor.to("cpu", wide, copy=True).requires_grad_()

    return bool(
        torch.autograd.gradcheck(
            function,
            tuple(mapped(each, double) for each in inputs),  # each its own, the same ones too
            **options,
        )
    )
