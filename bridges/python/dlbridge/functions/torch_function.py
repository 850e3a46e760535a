"""torch_function: a function of torch tensors that takes arrays; and gradcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlbridge import to_torch
from dlbridge.functions.agnostic import accepts, returns_like
from dlbridge.functions.array_function import ArrayFunction
from dlbridge.functions.sending import Wrapped
from dlbridge.trees import converted, is_array, leaves, mapped


class TorchFunction(Wrapped):
    """A function of tensors that takes arrays. Made by ``dlbridge.torch_function``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.function = function
        self._accepting = accepts("torch")(function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._accepting(*arguments, **named)

    def with_gradient(self, *arguments: Any, **named: Any) -> tuple[Any, tuple[Any, ...]]:
        """The value, a number, and its gradient by each positional argument.

        None where there is none; of a tree a tree of them. What is given by name is a constant.
        ``scipy.optimize.minimize(..., jac=True)`` wants the one gradient without the tuple.
        """
        import torch

        met: list[Any] = []  # each array as a tensor, if it has a gradient

        def leaf(x: Any) -> Any:
            if not _counts(x):
                return x
            tensor = to_torch(x)
            if tensor.is_inference():  # which autograd does not take
                tensor = tensor.clone()
            if tensor.is_floating_point() or tensor.is_complex():
                tensor = tensor.detach().requires_grad_()
            met.append(tensor if tensor.requires_grad else None)
            return tensor

        with torch.inference_mode(False), torch.enable_grad():
            tensors = [mapped(each, leaf) for each in arguments]
            wanted = [each for each in met if each is not None]
            if not wanted:
                raise TypeError(
                    f"{self.__qualname__}.with_gradient() needs an array of floats among its "
                    "positional arguments"
                )
            value = self.function(*tensors, **converted(named, "torch"))
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"{self.__qualname__}() gave a {type(value).__name__}, and with_gradient() "
                    "needs a tensor of one number"
                )
            found = iter(torch.autograd.grad(value, wanted, materialize_grads=True))
        gradients = iter([None if each is None else next(found) for each in met])

        def back(x: Any) -> Any:
            gradient = next(gradients) if _counts(x) else None
            return None if gradient is None else _back(gradient, x)

        first = next(each for each in leaves(arguments) if _counts(each))
        answer = _back(value.detach(), first)
        return answer, tuple(mapped(each, back) for each in arguments)

    def parts(self) -> tuple[Any, ...]:
        return TorchFunction, (self.function,)

    def __repr__(self) -> str:
        return f"<dlbridge.torch_function {self.__module__}.{self.__qualname__}>"


def _counts(x: Any) -> bool:
    return is_array(x) or isinstance(x, np.number)


def _back(tensor: Any, like: Any) -> Any:
    answer = returns_like(like if is_array(like) else np.asarray(like))(tensor)
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
