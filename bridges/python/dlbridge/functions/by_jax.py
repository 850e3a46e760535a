"""numpy_function for JAX: a callback of jax.jit's where the outputs are declared."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dlbridge.functions.agnostic import accepts
from dlbridge.functions.array_function import ArrayFunction, arrays, filled


def call(function: ArrayFunction, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    given = function.positional(arguments, named)
    traced = any(isinstance(each, jax.core.Tracer) for each in given)
    if not traced:
        return accepts("numpy")(function.function)(*arguments, **named)
    if function.returns is None:
        raise TypeError(
            f"{function.__qualname__}() is called under jax.jit or jax.grad, which have to know "
            "its outputs beforehand; declare them: @dlbridge.numpy_function(returns=...)"
        )
    places = tuple(place for place, each in enumerate(given) if isinstance(each, jax.Array))
    return _traced(function, given, places)


def _traced(function: ArrayFunction, given: tuple[Any, ...], places: tuple[int, ...]) -> Any:
    def on_host(*inputs: Any) -> list[Any]:
        outputs = function.run(arrays(filled(given, places, inputs)))
        return [each.astype(_dtype(each.dtype), copy=False) for each in outputs]

    @jax.custom_vjp
    def run(*inputs: Any) -> Any:
        declared = function.declared(filled(given, places, inputs))
        specs = [_shape_and_dtype(shape, _dtype(dtype)) for shape, dtype in declared]
        return jax.pure_callback(on_host, specs, *inputs, vmap_method="sequential")

    def forward(*inputs: Any) -> Any:
        outputs = run(*inputs)
        return outputs, (inputs, outputs)

    def gradient_on_host(inputs: Any, outputs: Any, gradients: Any) -> Any:
        needed = tuple(place in places for place in range(len(given)))
        found = function.run_gradient(
            arrays(filled(given, places, inputs)), arrays(outputs), needed, arrays(gradients)
        )
        return tuple(found[place] for place in places)

    def backward(saved: Any, gradients: Any) -> Any:
        inputs, outputs = saved
        if function.gradient is None:
            raise TypeError(
                f"{function.__qualname__}() has no gradient; write @{function.__name__}.backward"
            )
        shapes = tuple(_shape_and_dtype(each.shape, each.dtype) for each in inputs)
        return jax.pure_callback(
            gradient_on_host, shapes, inputs, outputs, gradients, vmap_method="sequential"
        )

    run.defvjp(forward, backward)
    outputs = run(*(given[place] for place in places))
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


def _shape_and_dtype(shape: Any, dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _dtype(dtype: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(np.dtype(dtype))
