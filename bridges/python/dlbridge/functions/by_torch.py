"""numpy_function for torch: autograd, vmap, autocast, and a custom operator for torch.compile."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from dlbridge import to_numpy, to_torch
from dlbridge.functions.array_function import ArrayFunction, arrays, filled, warn_not_differentiable
from dlbridge.functions.forward_mode import has_tangent

_transforms_active = torch._C._are_functorch_transforms_active
_is_batched = torch._C._functorch.is_legacy_batchedtensor
_LOW_PRECISION = (torch.float16, torch.bfloat16)


# The whole of it is one step for torch.compile, which otherwise breaks the graph inside.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def call(function: ArrayFunction, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The function on tensors. Whatever is no tensor goes to it as it is."""
    given = function.positional(arguments, named)
    places = [place for place, each in enumerate(given) if isinstance(each, torch.Tensor)]
    tensors = [_for_numpy(given[place]) for place in places]
    if function.gradient is None:
        by_gradient = torch.is_grad_enabled()
        followed = any(
            (by_gradient and each.requires_grad) or has_tangent(each) for each in tensors
        )
        if followed:
            warn_not_differentiable(function)
        if by_gradient or followed:
            tensors = [tensor.detach() for tensor in tensors]
    job = _Job(function, given, places)
    outputs = (_Forward if _transforms_active() else _NumpyFunction).apply(job, *tensors)
    return outputs if len(outputs) > 1 else outputs[0]


def _for_numpy(x: Any) -> Any:
    """Under autocast a matrix product gives bfloat16, which few functions of NumPy's can take."""
    low = isinstance(x, torch.Tensor) and x.dtype in _LOW_PRECISION
    return x.float() if low and torch.is_autocast_enabled(x.device.type) else x


class _Job:
    """One call: the function, and its arguments with places for the tensors."""

    def __init__(self, function: ArrayFunction, given: tuple[Any, ...], places: list[int]) -> None:
        self.function = function
        self.given = given
        self.places = places

    def inputs(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The arguments as the function may look at them."""
        if len(self.places) == len(self.given):
            return _looked_at(tensors)
        return arrays(filled(self.given, self.places, tensors))

    def outputs(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        outputs = self.function.run(self.inputs(tensors))
        device = _device_of(tensors[0]) if tensors else None
        return [to_torch(each, device=device) for each in outputs]

    def gradients(
        self, saved: Sequence[torch.Tensor], needed: tuple[bool, ...], gradients: Any
    ) -> list[torch.Tensor]:
        """Those that are needed; saved are the tensors, and behind them the outputs."""
        count = len(self.places)
        found = self.function.run_gradient(
            self.inputs(saved[:count]),
            _looked_at(saved[count:]),
            filled((False,) * len(self.given), self.places, needed),
            _looked_at(gradients),
        )
        device = _device_of(saved[0])
        return [to_torch(each, device=device) for each in found if each is not None]


def _looked_at(tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """Arrays of tensors that nobody may write to. They are new: of no other use is that told."""
    made = tuple(map(to_numpy, tensors))
    for array in made:
        array.flags.writeable = False
    return made


def _device_of(tensor: torch.Tensor) -> torch.device | None:
    return None if tensor.is_cpu else tensor.device


def _per_item(info: Any, dims: tuple[int | None, ...], tensors: tuple[Any, ...]) -> Any:
    """For vmap: the arguments of each item of the batch."""
    if info.batch_size == 0:
        raise ValueError(
            "a numpy_function() under vmap is called for each item of the batch, and there is "
            "none: nobody knows the shape of what it gives"
        )
    for item in range(info.batch_size):
        yield tuple(
            tensor if dim is None else tensor.select(dim, item)
            for tensor, dim in zip(tensors, dims, strict=True)
        )


def _stacked(results: Any) -> tuple[Any, Any]:
    outputs = tuple(torch.stack(column) for column in zip(*results, strict=True))
    return outputs, (0,) * len(outputs)


def _in_autograds_vmap(
    job: _Job, needed: tuple[bool, ...], saved: Any, gradients: Any
) -> list[torch.Tensor | None]:
    """The gradients for a batch of them, by the vmap that ``is_grads_batched=True`` and
    ``jacobian(vectorize=True)`` go by: autograd's own, which asks no function for its rule."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    # Each as a tensor with the batch in front, as vmap's rule takes it.
    sizes = [torch._remove_batch_dim(each, level, 1, 0).shape[0] for each in gradients]
    batch = [torch._remove_batch_dim(each, level, max(sizes), 0) for each in gradients]
    items = zip(*(each.unbind() for each in batch), strict=True)
    found, _ = _stacked([_Backward.apply(job, needed, *saved, *item) for item in items])
    parts = iter([torch._add_batch_dim(each, 0, level) for each in found])
    return [next(parts) if asked else None for asked in needed]


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(job: _Job, *tensors: torch.Tensor) -> Any:
        return tuple(job.outputs(tensors))

    @staticmethod
    def setup_context(context: Any, inputs: Any, outputs: Any) -> None:
        context.job = inputs[0]
        context.save_for_backward(*inputs[1:], *outputs)
        context.mark_non_differentiable(
            *[each for each in outputs if not (each.is_floating_point() or each.is_complex())]
        )

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        saved = context.saved_tensors
        needed = tuple(context.needs_input_grad[1:])
        if any(map(_is_batched, gradients)):
            return None, *_in_autograds_vmap(context.job, needed, saved, gradients)
        # A gradient that is looked through again is a node of the graph; the plain one need not be.
        plain = not (torch.is_grad_enabled() or _transforms_active())
        run = _Backward.forward if plain else _Backward.apply
        found = iter(run(context.job, needed, *saved, *gradients))
        return None, *(next(found) if asked else None for asked in needed)

    @staticmethod
    def vmap(info: Any, dims: Any, job: _Job, *tensors: torch.Tensor) -> Any:
        items = _per_item(info, dims[1:], tensors)
        return _stacked([_Forward.apply(job, *item) for item in items])


class _NumpyFunction(torch.autograd.Function):  # what torch names its node by
    """The same where no transform of torch.func's looks through. Of a function with a
    ``setup_context`` torch makes the signature anew at each call, which takes as long as the rest.
    """

    @staticmethod
    def forward(context: Any, job: _Job, *tensors: torch.Tensor) -> Any:
        outputs = _Forward.forward(job, *tensors)
        _Forward.setup_context(context, (job, *tensors), outputs)
        return outputs

    backward = _Forward.backward  # type: ignore[assignment]


class _Backward(torch.autograd.Function):
    """The gradient is a function of its own, so that torch.func's transforms can look through."""

    @staticmethod
    def forward(job: _Job, needed: tuple[bool, ...], *tensors: torch.Tensor) -> Any:
        # The tensors, the outputs, and a gradient for each output.
        saved = (len(tensors) + len(job.places)) // 2
        return tuple(job.gradients(tensors[:saved], needed, tensors[saved:]))

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
    def vmap(info: Any, dims: Any, job: _Job, needed: Any, *tensors: Any) -> Any:
        items = _per_item(info, dims[2:], tensors)
        return _stacked([_Backward.apply(job, needed, *item) for item in items])


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
    parameters = function.signature.parameters
    types = {name: _type_of(parameter) for name, parameter in parameters.items()}
    optional = [name for name, each in parameters.items() if each.default is not each.empty]
    required = [name for name in parameters if name not in optional]
    if list(parameters) != required + optional:
        raise TypeError(
            f"numpy_function(returns=...) wants a default for {required[-1]}, which comes behind "
            "an argument that has one: an operator of torch's has those last"
        )
    arguments = ", ".join(
        f"{kind} {name}{_default(kind, parameters[name])}" for name, kind in types.items()
    )
    places = [place for place, kind in enumerate(types.values()) if kind.startswith("Tensor")]
    name = re.sub(r"\W+", "_", f"{function.__module__}_{function.__qualname__}")
    # Inductor writes the name into a class, where Python changes one that begins with "__".
    name = f"dlbridge::numpy_{name}_{next(_numbers)}"

    # Torch leaves out the last of those that are as their defaults.
    def whole(told: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*told, *(each.default for each in list(parameters.values())[len(told) :]))

    def run(*told: Any) -> list[torch.Tensor]:
        given = whole(told)
        there = _filled_of(given, places)
        outputs = _Job(function, given, there).outputs([given[place] for place in there])
        return _as_declared(function, given, outputs)

    schema = f"({arguments}) -> Tensor[]"
    operator = torch.library.custom_op(name, run, mutates_args=(), schema=schema)

    @operator.register_fake
    def _(*told: Any) -> list[torch.Tensor]:
        given = whole(told)
        there = _filled_of(given, places)
        device = given[there[0]].device if there else "cpu"
        return [
            torch.empty(shape, dtype=_dtype(dtype), device=device)
            for shape, dtype in function.declared(given)
        ]

    if function.gradient is not None:
        _register_gradient(function, operator, f"{name}_backward", places)
    return _Compiled(operator, function.gradient is not None)


class _Compiled:
    """The operator, called as the function is."""

    def __init__(self, operator: Any, has_gradient: bool) -> None:
        self.operator = operator
        self.has_gradient = has_gradient

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        given = {name: self._given(each) for name, each in named.items()}
        return self.operator(*map(self._given, arguments), **given)

    def _given(self, x: Any) -> Any:
        x = _for_numpy(x)
        # Torch wants a gradient of an operator wherever one is asked for.
        return x if self.has_gradient or not isinstance(x, torch.Tensor) else x.detach()


def _register_gradient(
    function: ArrayFunction, operator: Any, name: str, places: list[int]
) -> None:
    def run(
        saved: list[torch.Tensor], gradients: list[torch.Tensor], call: str
    ) -> list[torch.Tensor]:
        given, there, needed = _read(call)
        return _Job(function, given, there).gradients(saved, needed, gradients)

    schema = "(Tensor[] saved, Tensor[] gradients, str call) -> Tensor[]"
    backward = torch.library.custom_op(name, run, mutates_args=(), schema=schema)

    @backward.register_fake
    def _(saved: Any, gradients: Any, call: str) -> list[torch.Tensor]:
        needed = _read(call)[2]
        compact = torch.contiguous_format  # as a copy of NumPy's is
        wanted = (t for t, asked in zip(saved, needed, strict=False) if asked)
        return [torch.empty_like(t, memory_format=compact) for t in wanted]

    # Torch passes these by name, and this is the name.
    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.given = tuple(None if place in places else each for place, each in enumerate(inputs))
        ctx.there = _filled_of(inputs, places)
        ctx.save_for_backward(*(inputs[place] for place in ctx.there), *output)

    def gradient(context: Any, gradients: Any) -> Any:
        needed = tuple(context.needs_input_grad[place] for place in context.there)
        saved = context.saved_tensors
        whole = [
            torch.zeros_like(output) if each is None else each
            for each, output in zip(gradients, saved[len(context.there) :], strict=True)
        ]
        found = iter(backward(list(saved), whole, _written(context.given, context.there, needed)))
        result = [next(found) if asked else None for asked in needed]
        return filled((None,) * len(context.given), context.there, result)

    operator.register_autograd(gradient, setup_context=setup)


# The constants of a call, as a text that an operator can take. Nothing of this process may stand in
# it: torch keeps compiled graphs on disk, and a later process runs them.
def _written(given: tuple[Any, ...], places: list[int], needed: tuple[bool, ...]) -> str:
    return json.dumps([[_plain(each) for each in given], places, list(needed)])


def _read(call: str) -> tuple[tuple[Any, ...], list[int], tuple[bool, ...]]:
    given, places, needed = json.loads(call)
    return tuple(given), places, tuple(needed)


def _filled_of(given: Sequence[Any], places: list[int]) -> list[int]:
    """Where a tensor is indeed: one that has None as its default may be left out."""
    return [place for place in places if given[place] is not None]


def _plain(constant: Any) -> Any:
    kinds: dict[type, Any] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
    return kinds.get(type(constant), lambda same: same)(constant)


def _type_of(parameter: inspect.Parameter) -> str:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise TypeError(
            f"numpy_function(returns=...) cannot take the argument {parameter}: an operator of "
            "torch's has a fixed list of arguments"
        )
    annotation = parameter.annotation
    if annotation is parameter.empty:
        text = _kind_of(parameter.default)
    else:
        # list[int] has a name as classes do, which leaves out what is in it.
        text = annotation.__name__ if type(annotation) is type else str(annotation)
        text = text.removeprefix("typing.").replace("List[", "list[").replace("Tuple[", "tuple[")
    return _TYPES.get(text, "Tensor") + ("?" if parameter.default is None else "")


def _kind_of(default: Any) -> str:
    if isinstance(default, (tuple, list)):
        return "list[int]" if all(isinstance(each, int) for each in default) else "list[float]"
    kinds = (bool, int, float, str)
    return next((kind.__name__ for kind in kinds if isinstance(default, kind)), "Tensor")


def _default(kind: str, parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return ""
    if value is None or isinstance(value, bool):
        return f"={value}"
    text = json.dumps(value, ensure_ascii=False) if kind != "Tensor" else ""
    if not text or not math.isfinite(value if isinstance(value, float) else 0):
        raise TypeError(
            f"numpy_function(returns=...) cannot take the argument {parameter}: the defaults that "
            "an operator of torch's has are finite numbers, lists of them, texts and None"
        )
    return f"={text}"


def _dtype(dtype: Any) -> torch.dtype:
    """A torch dtype of one, or of a name, or of NumPy's, whose float has 64 bits."""
    if isinstance(dtype, torch.dtype):
        return dtype
    try:
        name = np.dtype(dtype).name
    except TypeError:  # NumPy lacks it
        name = str(dtype)
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"numpy_function(returns=...) names no dtype of torch's: {dtype!r}")
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
