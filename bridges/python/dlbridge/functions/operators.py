"""numpy_function for torch.compile: a custom operator, which it need not look into."""

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

from dlbridge.functions.array_function import ArrayFunction, filled
from dlbridge.functions.by_torch import Job, for_numpy

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
        outputs = Job(function, given, there).outputs([given[place] for place in there])
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
        x = for_numpy(x)
        # Torch wants a gradient of an operator wherever one is asked for.
        return x if self.has_gradient or not isinstance(x, torch.Tensor) else x.detach()


def _register_gradient(
    function: ArrayFunction, operator: Any, name: str, places: list[int]
) -> None:
    def run(
        saved: list[torch.Tensor], gradients: list[torch.Tensor], call: str
    ) -> list[torch.Tensor]:
        given, there, needed = _read(call)
        return Job(function, given, there).gradients(saved, needed, gradients)

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
        # Some releases fill in defaults for setup() alone.
        told = len(context.needs_input_grad)
        return filled((None,) * told, context.there, result)

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
    kind = re.sub(r"^Optional\[(.*)\]$| \| None$", r"\1", text)
    # Torch reads no list as the default of what may be None.
    is_listed = isinstance(parameter.default, (tuple, list))
    is_optional = parameter.default is None or (kind != text and not is_listed)
    return _TYPES.get(kind, "Tensor") + ("?" if is_optional else "")


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
    numbers = value if isinstance(value, (tuple, list)) else [value]
    is_known = isinstance(value, str) or all(map(_is_number, numbers))
    if kind.startswith("Tensor") or not is_known:
        raise TypeError(
            f"numpy_function(returns=...) cannot take the argument {parameter}: the defaults that "
            "an operator of torch's has are finite numbers, lists of them, texts and None"
        )
    return f"={json.dumps(value, ensure_ascii=False)}"


def _is_number(value: Any) -> bool:
    """Whether torch can read it as a default. It reads no lists of bool's."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


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
