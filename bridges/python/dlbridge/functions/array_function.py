"""A function of NumPy arrays as torch and JAX see it: its arguments, outputs and gradient."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dlbridge import NotDifferentiable, to_numpy
from dlbridge.functions.sending import Wrapped
from dlbridge.ledger import caller
from dlbridge.trees import is_array, leaves

_Array = npt.NDArray[Any]

# What gives its values later, and autograd cannot wait for.
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Context(NamedTuple):
    """What a gradient in NumPy is made from.

    ``inputs`` are the arguments as the function had them, arrays read-only; ``outputs`` what it
    gave, a tuple; ``needed`` says of each argument whether a gradient is asked for.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[_Array, ...]
    needed: tuple[bool, ...]


class ArrayFunction(Wrapped):
    """The function, what it declares of its outputs, and its gradient; all in NumPy."""

    def __init__(self, function: Callable[..., Any], returns: Any, differentiable: bool) -> None:
        if not callable(function):
            raise TypeError(
                f"numpy_function() takes a function, not {type(function).__name__}; its options "
                "go by name: @dlbridge.numpy_function(returns=...)"
            )
        if any(is_one(function) for is_one in _LATER):
            raise TypeError(
                f"numpy_function() takes a function that gives arrays, and {function.__name__}() "
                'is a coroutine or a generator; dlbridge.accepts("numpy") takes those'
            )
        super().__init__(function)
        self.function = function
        self.signature = _signature_of(function)
        parameters = self.signature.parameters.values()
        kinds = [each.kind for each in parameters]
        self._by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        self._by_place = sum(kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
        self._any_number = inspect.Parameter.VAR_POSITIONAL in kinds
        self._alone_by_place = -1 if self._by_name else len(kinds)
        if isinstance(returns, str) and returns not in self.signature.parameters:
            listed = ", ".join(map(repr, self.signature.parameters))
            raise ValueError(f"returns={returns!r} names no argument; use one of {listed}")
        if not (returns is None or isinstance(returns, str) or callable(returns)):
            raise TypeError(
                "returns is the name of an argument, or a function that gives shape and dtype, not "
                f"{type(returns).__name__}"
            )
        self.returns = returns
        self.differentiable = differentiable
        self.gradient: Callable[..., Any] | None = None

    def positional(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the signature, defaults filled in: those that go by name
        too, behind the others."""
        for each in (*arguments, *named.values()):
            if isinstance(each, (list, tuple, dict)) and any(map(is_array, leaves(each))):
                raise TypeError(
                    f"{self.__qualname__}() got arrays inside of a {type(each).__name__}, where "
                    "autograd cannot follow them; give each as an argument of its own, or use "
                    'dlbridge.accepts("numpy"), which takes trees and knows no gradients'
                )
        if len(arguments) == self._alone_by_place and not named:
            return arguments
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        others = ", ".join(name for name in bound.kwargs if name not in self._by_name)
        if others:
            raise TypeError(
                f"{self.__qualname__}() takes {others} by its **, and a numpy_function() has a "
                f"gradient for each argument that its signature names; write {others} there"
            )
        return (*bound.args, *bound.kwargs.values())

    def _called(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """The function, called with ``positional()`` arguments as this one is with its own."""
        if not self._by_name:
            return function(*given)
        first = len(given) - len(self._by_name) if self._any_number else self._by_place
        return function(*given[:first], **dict(zip(self._by_name, given[first:], strict=True)))

    def declared(self, arguments: tuple[Any, ...]) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each output for arguments that have a shape and a dtype."""
        rule = self.returns
        if isinstance(rule, str):
            like = arguments[list(self.signature.parameters).index(rule)]
            found: Any = (like.shape, like.dtype)
        else:
            found = self._called(rule, arguments)
        many = found if isinstance(found, list) else [found]
        return [(tuple(shape), dtype) for shape, dtype in many]

    def run(self, inputs: tuple[Any, ...]) -> tuple[_Array, ...]:
        """The outputs on arrays. A tuple of one is one output."""
        found = self._called(self.function, inputs)
        several = found if isinstance(found, (tuple, list)) and found else (found,)
        outputs: tuple[_Array, ...] = ()
        for each in several:
            outputs += (_output(self, each, (*inputs, *outputs)),)
        return outputs

    def run_gradient(
        self,
        inputs: tuple[Any, ...],
        outputs: tuple[_Array, ...],
        needed: tuple[bool, ...],
        gradients: tuple[_Array, ...],
    ) -> list[_Array | None]:
        """A gradient for each argument, checked against its shape."""
        assert self.gradient is not None
        found = self.gradient(Context._make((inputs, outputs, needed)), *gradients)
        several = found if isinstance(found, (tuple, list)) else (found,)
        # Of those by name only, the last of which no gradient is asked may be left out.
        left_out = needed[len(several) :]
        if not 0 <= len(inputs) - len(several) <= len(self._by_name) or any(left_out):
            raise ValueError(
                f"the gradient of {self.__qualname__}() gave {len(several)} values for "
                f"{len(inputs)} arguments; it has to give one for each, None where there is none"
            )
        checked: list[_Array | None] = []
        for each, given, asked in zip(several, inputs, needed, strict=False):
            if not asked:
                checked.append(None)
                continue
            if each is None:
                checked.append(np.zeros_like(given, order="C"))
                continue
            array = _plain(each)
            if array.shape != given.shape:
                raise ValueError(
                    f"the gradient of {self.__qualname__}() has shape {array.shape} for an "
                    f"argument of shape {given.shape}; it has to have the argument's"
                )
            # A copy: autograd adds further gradients to it in place, and the function may have kept
            # it, or given it for another argument too.
            checked.append(array.astype(given.dtype, order="C"))
        return checked


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    try:
        found = inspect.signature(function)
    except ValueError:  # written in C, and does not say
        return inspect.signature(lambda *arguments: None)
    if isinstance(function, np.ufunc):  # some of its options are not for one call
        given = [each for each in found.parameters.values() if each.kind is not each.KEYWORD_ONLY]
        return found.replace(parameters=given)
    return found


def _output(function: ArrayFunction, value: Any, others: tuple[Any, ...]) -> _Array:
    if not is_array(value) and not isinstance(value, (np.generic, float, int, complex)):
        raise TypeError(
            f"{function.__qualname__}() gave a {type(value).__name__}; a numpy_function() gives an "
            'array, or a tuple of them (dlbridge.accepts("numpy") takes any answer)'
        )
    return _apart(_plain(value), others)


def _plain(value: Any) -> _Array:
    """An array of it. One that means more than its values, as a masked one does, is refused."""
    return to_numpy(value) if is_array(value) else np.asarray(value)


def _apart(array: _Array, others: tuple[Any, ...]) -> _Array:
    """The array, or a copy where it may share memory with one of the others: tensors would then be
    views of one another, and autograd not know of it."""
    for other in others:
        if isinstance(other, np.ndarray) and np.may_share_memory(array, other):
            return np.array(array)
    return array


def filled(
    values: tuple[Any, ...], places: Sequence[int], others: Iterable[Any]
) -> tuple[Any, ...]:
    """The values, with others at these places, which ascend."""
    if len(places) == len(values):
        return tuple(others)
    result = list(values)
    for place, other in zip(places, others, strict=True):
        result[place] = other
    return tuple(result)


def arrays(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values; arrays of any library as those that a function may look at."""
    return tuple(map(_read_only, values))


def _read_only(x: Any) -> Any:
    if not is_array(x):
        return x
    array = to_numpy(x)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


_warned: dict[Any, Any] = {}  # where the warning was given already, as warnings keeps it


def warn_not_differentiable(function: ArrayFunction) -> None:
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
