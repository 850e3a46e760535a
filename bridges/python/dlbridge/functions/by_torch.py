"""numpy_function for torch: autograd, vmap, autocast, and a custom operator for torch.compile."""

from __future__ import annotations

import inspect
import itertools
import json
import re
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from dlbridge import to_torch
from dlbridge.functions.array_function import (
    ArrayFunction,
    read_only,
    warn_not_differentiable,
)

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def concerns(arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    return any(isinstance(each, torch.Tensor) for each in (*arguments, *named.values()))


# The whole of it is one step for torch.compile, which otherwise breaks the graph inside.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def call(function: ArrayFunction, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The function on tensors. Whatever is no tensor goes to it as it is."""
    given = function.positional(arguments, named)
    places = [place for place, each in enumerate(given) if isinstance(each, torch.Tensor)]
    tensors = [_for_numpy(given[place]) for place in places]
    if function.gradient is None and torch.is_grad_enabled():
        if any(tensor.requires_grad for tensor in tensors):
            warn_not_differentiable(function)
        tensors = [tensor.detach() for tensor in tensors]
    job = _Job(function, given, places)
    outputs = _Forward.apply(job, *tensors)
    return outputs if len(outputs) > 1 else outputs[0]


def _for_numpy(tensor: torch.Tensor) -> torch.Tensor:
    """Under autocast a matrix product gives bfloat16, which few functions of NumPy's can take."""
    if tensor.dtype in _LOW_PRECISION and torch.is_autocast_enabled(tensor.device.type):
        return tensor.float()
    return tensor


class _Job:
    """One call: the function, and its arguments with places for the tensors."""

    def __init__(self, function: ArrayFunction, given: tuple[Any, ...], places: list[int]) -> None:
        self.function = function
        self.given = given
        self.places = places

    def filled(self, tensors: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        """The arguments as arrays: those of other libraries that are no tensors too."""
        inputs = list(self.given)
        for place, tensor in zip(self.places, tensors, strict=True):
            inputs[place] = tensor
        return tuple(read_only(each) for each in inputs)

    def at_places(self, flags: tuple[bool, ...]) -> tuple[bool, ...]:
        spread = [False] * len(self.given)
        for place, flag in zip(self.places, flags, strict=True):
            spread[place] = flag
        return tuple(spread)


def _delivered(array: Any, device: torch.device) -> torch.Tensor:
    return to_torch(array, device=None if device.type == "cpu" else device)


def _per_item(info: Any, dims: tuple[int | None, ...], tensors: tuple[Any, ...]) -> Any:
    """For vmap: the arguments of each item of the batch."""
    for item in range(info.batch_size):
        yield tuple(
            tensor if dim is None else tensor.select(dim, item)
            for tensor, dim in zip(tensors, dims, strict=True)
        )


def _stacked(results: Any) -> tuple[Any, Any]:
    outputs = tuple(torch.stack(column) for column in zip(*results, strict=True))
    return outputs, (0,) * len(outputs)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(job: _Job, *tensors: torch.Tensor) -> Any:
        outputs = job.function.run(job.filled(tensors))
        return tuple(_delivered(each, tensors[0].device) for each in outputs)

    @staticmethod
    def setup_context(context: Any, inputs: Any, outputs: Any) -> None:
        job, *tensors = inputs
        context.job = job
        context.inputs = len(tensors)
        context.save_for_backward(*tensors, *outputs)
        context.mark_non_differentiable(
            *(each for each in outputs if not (each.is_floating_point() or each.is_complex()))
        )

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        saved = context.saved_tensors
        needed = tuple(context.needs_input_grad[1:])
        # A gradient that is looked through again is a node of the graph; the plain one need not be.
        plain = not (torch.is_grad_enabled() or torch._C._are_functorch_transforms_active())
        run = _Backward.forward if plain else _Backward.apply
        found = iter(run(context.job, needed, context.inputs, *saved, *gradients))
        return None, *(next(found) if asked else None for asked in needed)

    @staticmethod
    def vmap(info: Any, dims: Any, job: _Job, *tensors: torch.Tensor) -> Any:
        return _stacked([_Forward.apply(job, *item) for item in _per_item(info, dims[1:], tensors)])


class _Backward(torch.autograd.Function):
    """The gradient is a function of its own, so that torch.func's transforms can look through."""

    @staticmethod
    def forward(job: _Job, needed: tuple[bool, ...], count: int, *tensors: torch.Tensor) -> Any:
        saved, gradients = _split(tensors, count)
        inputs = job.filled(saved[:count])
        found = job.function.run_gradient(
            inputs,
            tuple(read_only(each) for each in saved[count:]),
            job.at_places(needed),
            tuple(read_only(each) for each in gradients),
        )
        return tuple(_delivered(each, tensors[0].device) for each in found if each is not None)

    @staticmethod
    def setup_context(context: Any, inputs: Any, outputs: Any) -> None:
        context.name = inputs[0].function.__qualname__

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        raise RuntimeError(
            f"the gradient of {context.name}() is NumPy's and has none itself: "
            "a numpy_function() can be differentiated once"
        )

    @staticmethod
    def vmap(info: Any, dims: Any, job: _Job, needed: Any, count: int, *tensors: Any) -> Any:
        return _stacked(
            [
                _Backward.apply(job, needed, count, *item)
                for item in _per_item(info, dims[3:], tensors)
            ]
        )


def _split(tensors: tuple[Any, ...], inputs: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What was saved, inputs and outputs, and behind it a gradient for each output."""
    outputs = (len(tensors) - inputs) // 2
    return tensors[: inputs + outputs], tensors[inputs + outputs :]


# --- torch.compile -------------------------------------------------------------------------------

_numbers = itertools.count()

# The types that an operator's schema has for what is no tensor.
_TYPES = {
    "float": "float",
    "int": "SymInt",
    "bool": "bool",
    "str": "str",
    "tuple[int, ...]": "SymInt[]",
    "list[int]": "SymInt[]",
    "tuple[float, ...]": "float[]",
    "list[float]": "float[]",
}


def operator_of(function: ArrayFunction) -> Any:
    """The function as an operator of torch's, which torch.compile need not look into."""
    types = {name: _type_of(parameter) for name, parameter in function.signature.parameters.items()}
    arguments = ", ".join(
        f"{kind} {name}{_default(function.signature.parameters[name])}"
        for name, kind in types.items()
    )
    places = [place for place, kind in enumerate(types.values()) if kind == "Tensor"]
    name = re.sub(r"\W+", "_", f"{function.__module__}_{function.__qualname__}")
    # Inductor writes the name into a class, where Python changes one that begins with "__".
    name = f"dlbridge::numpy_{name}_{next(_numbers)}"

    def run(*given: Any) -> list[torch.Tensor]:
        tensors = tuple(given[place] for place in places)
        job = _Job(function, given, places)
        outputs = function.run(job.filled(tensors))
        return _as_declared(function, given, [_delivered(o, tensors[0].device) for o in outputs])

    operator = torch.library.custom_op(
        name, run, mutates_args=(), schema=f"({arguments}) -> Tensor[]"
    )

    @operator.register_fake
    def _(*given: Any) -> list[torch.Tensor]:
        device = given[places[0]].device
        return [
            torch.empty(shape, dtype=_dtype(dtype), device=device)
            for shape, dtype in function.declared(given)
        ]

    if function.gradient is not None:
        _register_gradient(function, operator, f"{name}_backward", places)
    return _Compiled(function, operator)


class _Compiled:
    """The operator, called as the function is."""

    def __init__(self, function: ArrayFunction, operator: Any) -> None:
        self.function = function
        self.operator = operator

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.operator(*(self._arranged(arguments)), **named)

    def _arranged(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            _for_numpy(each) if isinstance(each, torch.Tensor) else each for each in arguments
        )


def _register_gradient(
    function: ArrayFunction, operator: Any, name: str, places: list[int]
) -> None:
    def run(
        saved: list[torch.Tensor], gradients: list[torch.Tensor], call: str
    ) -> list[torch.Tensor]:
        given, needed = _read(call)
        job = _Job(function, given, places)
        count = len(places)
        found = function.run_gradient(
            job.filled(tuple(saved[:count])),
            tuple(read_only(each) for each in saved[count:]),
            job.at_places(needed),
            tuple(read_only(each) for each in gradients),
        )
        device = saved[0].device
        return [_delivered(each, device) for each in found if each is not None]

    backward = torch.library.custom_op(
        name,
        run,
        mutates_args=(),
        schema="(Tensor[] saved, Tensor[] gradients, str call) -> Tensor[]",
    )

    @backward.register_fake
    def _(saved: Any, gradients: Any, call: str) -> list[torch.Tensor]:
        needed = _read(call)[1]
        return [torch.empty_like(t) for t, asked in zip(saved, needed, strict=False) if asked]

    # Torch passes these by name, and this is the name.
    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.given = tuple(None if place in places else each for place, each in enumerate(inputs))
        ctx.save_for_backward(*(inputs[place] for place in places), *output)

    def gradient(context: Any, gradients: Any) -> Any:
        needed = tuple(context.needs_input_grad[place] for place in places)
        saved = context.saved_tensors
        filled = [
            torch.zeros_like(output) if each is None else each
            for each, output in zip(gradients, saved[len(places) :], strict=True)
        ]
        found = iter(backward(list(saved), filled, _written(context.given, needed)))
        result: list[Any] = [None] * len(context.given)
        for place, asked in zip(places, needed, strict=True):
            if asked:
                result[place] = next(found)
        return tuple(result)

    operator.register_autograd(gradient, setup_context=setup)


# The constants of a call, as a text that an operator can take. Nothing of this process may stand in
# it: torch keeps compiled graphs on disk, and a later process runs them.
def _written(given: tuple[Any, ...], needed: tuple[bool, ...]) -> str:
    return json.dumps([[_plain(each) for each in given], list(needed)])


def _read(call: str) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
    given, needed = json.loads(call)
    return tuple(given), tuple(needed)


def _plain(constant: Any) -> Any:
    if isinstance(constant, torch.SymInt):
        return int(constant)
    if isinstance(constant, torch.SymFloat):
        return float(constant)
    if isinstance(constant, torch.SymBool):
        return bool(constant)
    return constant


def _type_of(parameter: inspect.Parameter) -> str:
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        raise TypeError(
            f"numpy_function(returns=...) cannot take the argument {parameter}: an operator of "
            "torch's has a fixed list of arguments"
        )
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if text in _TYPES:
        return _TYPES[text]
    if annotation is parameter.empty and parameter.default is not parameter.empty:
        return _TYPES.get(type(parameter.default).__name__, "Tensor")
    return "Tensor"


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return ""
    if isinstance(value, (tuple, list)):
        return "=[" + ", ".join(map(repr, value)) + "]"
    return f'="{value}"' if isinstance(value, str) else f"={value!r}"


def _dtype(dtype: Any) -> torch.dtype:
    """A torch dtype of one, or of a name, or of NumPy's."""
    if isinstance(dtype, torch.dtype):
        return dtype
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    found: torch.dtype = getattr(torch, name)
    return found


def _as_declared(
    function: ArrayFunction, given: tuple[Any, ...], outputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The outputs, which have to be what compiled code has been told."""
    declared = [(tuple(shape), _dtype(dtype)) for shape, dtype in function.declared(given)]
    found = [(tuple(each.shape), each.dtype) for each in outputs]
    if declared != found:
        raise ValueError(
            f"{function.__qualname__}() gave {found}, and its returns= declares {declared}"
        )
    # Compiled code takes them for compact.
    return [each.contiguous() for each in outputs]
