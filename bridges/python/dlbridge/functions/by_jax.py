"""numpy_function for JAX: a callback of jax.jit's where the outputs are declared."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dlbridge.functions.agnostic import accepts
from dlbridge.functions.array_function import ArrayFunction, read_only


def call(function: ArrayFunction, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    given = function.positional(arguments, named)
    traced = any(isinstance(each, jax.core.Tracer) for each in given)
    if not traced:
        return accepts("numpy")(function.function)(*given)
    if function.returns is None:
        raise TypeError(
            f"{function.__qualname__}() is called under jax.jit or jax.grad, which have to know "
            "its outputs beforehand; declare them: @dlbridge.numpy_function(returns=...)"
        )
    places = tuple(place for place, each in enumerate(given) if isinstance(each, jax.Array))
    return _traced(function, given, places)


def _traced(function: ArrayFunction, given: tuple[Any, ...], places: tuple[int, ...]) -> Any:
    def filled(arrays: Any) -> tuple[Any, ...]:
        inputs = list(given)
        for place, array in zip(places, arrays, strict=True):
            inputs[place] = array
        return tuple(inputs)

    def specs(arrays: Any) -> list[Any]:
        return [
            _shape_and_dtype(shape, _dtype(dtype))
            for shape, dtype in function.declared(filled(arrays))
        ]

    def on_host(*arrays: Any) -> list[Any]:
        outputs = function.run(tuple(read_only(each) for each in filled(arrays)))
        return [_in_jax(each) for each in outputs]

    @jax.custom_vjp
    def run(*arrays: Any) -> Any:
        return jax.pure_callback(on_host, specs(arrays), *arrays, vmap_method="sequential")

    def forward(*arrays: Any) -> Any:
        outputs = run(*arrays)
        return outputs, (arrays, outputs)

    def gradient_on_host(arrays: Any, outputs: Any, gradients: Any) -> Any:
        inputs = tuple(read_only(each) for each in filled(arrays))
        needed = tuple(place in places for place in range(len(given)))
        found = function.run_gradient(
            inputs,
            tuple(read_only(each) for each in outputs),
            needed,
            tuple(read_only(each) for each in gradients),
        )
        return tuple(found[place] for place in places)

    def backward(saved: Any, gradients: Any) -> Any:
        arrays, outputs = saved
        if function.gradient is None:
            raise TypeError(
                f"{function.__qualname__}() has no gradient; write @{function.__name__}.backward"
            )
        shapes = tuple(_shape_and_dtype(each.shape, each.dtype) for each in arrays)
        return jax.pure_callback(
            gradient_on_host, shapes, arrays, outputs, gradients, vmap_method="sequential"
        )

    run.defvjp(forward, backward)
    outputs = run(*(given[place] for place in places))
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


def _shape_and_dtype(shape: Any, dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _dtype(dtype: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(np.dtype(dtype))


def _in_jax(array: Any) -> Any:
    return array.astype(_dtype(array.dtype), copy=False)
