"""numpy_function for torch: autograd, vmap and autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    tensors = [for_numpy(given[place]) for place in places]
    if function.gradient is None:
        by_gradient = torch.is_grad_enabled()
        followed = any(
            (by_gradient and each.requires_grad) or has_tangent(each) for each in tensors
        )
        if followed:
            warn_not_differentiable(function)
        if by_gradient or followed:
            tensors = [tensor.detach() for tensor in tensors]
    # Autograd alone holds the tensors, until a backward or a hook lets go of them.
    job = Job(function, filled(given, places, [None] * len(places)), places)
    outputs = (_Forward if _transforms_active() else _NumpyFunction).apply(job, *tensors)
    return outputs if len(outputs) > 1 else outputs[0]


def for_numpy(x: Any) -> Any:
    """Under autocast a matrix product gives bfloat16, which few functions of NumPy's can take."""
    low = isinstance(x, torch.Tensor) and x.dtype in _LOW_PRECISION
    return x.float() if low and torch.is_autocast_enabled(x.device.type) else x


class Job:
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
        array.setflags(write=False)  # array.flags.writeable = False takes twice as long
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
    job: Job, needed: tuple[bool, ...], saved: Any, gradients: Any
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
    def forward(job: Job, *tensors: torch.Tensor) -> Any:
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
    def vmap(info: Any, dims: Any, job: Job, *tensors: torch.Tensor) -> Any:
        items = _per_item(info, dims[1:], tensors)
        return _stacked([_Forward.apply(job, *item) for item in items])


class _NumpyFunction(torch.autograd.Function):  # what torch names its node by
    """The same where no transform of torch.func's looks through. Of a function with a
    ``setup_context`` torch makes the signature anew at each call, which takes as long as the rest.
    """

    @staticmethod
    def forward(context: Any, job: Job, *tensors: torch.Tensor) -> Any:
        outputs = _Forward.forward(job, *tensors)
        _Forward.setup_context(context, (job, *tensors), outputs)
        return outputs

    backward = _Forward.backward  # type: ignore[assignment]


class _Backward(torch.autograd.Function):
    """The gradient is a function of its own, so that torch.func's transforms can look through."""

    @staticmethod
    def forward(job: Job, needed: tuple[bool, ...], *tensors: torch.Tensor) -> Any:
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
    def vmap(info: Any, dims: Any, job: Job, needed: Any, *tensors: Any) -> Any:
        items = _per_item(info, dims[2:], tensors)
        return _stacked([_Backward.apply(job, needed, *item) for item in items])
