"""Tensors without memory that could be looked at: refused on both roads, with a fix."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge
from dlbridge import to_numpy

pytestmark = pytest.mark.keeps_sources  # lazy modules are circles; torch keeps a process group

LAZY: dict[str, Callable[[], Any]] = {
    "parameter": torch.nn.UninitializedParameter,
    "parameter without grad": lambda: torch.nn.UninitializedParameter(requires_grad=False),
    "buffer": torch.nn.UninitializedBuffer,
    "buffer of integers": lambda: torch.nn.UninitializedBuffer(dtype=torch.int64),
    "LazyLinear": lambda: torch.nn.LazyLinear(3).weight,
    "LazyConv2d": lambda: torch.nn.LazyConv2d(3, 3).bias,
    "LazyConvTranspose1d": lambda: torch.nn.LazyConvTranspose1d(3, 3).weight,
    "LazyBatchNorm1d": lambda: torch.nn.LazyBatchNorm1d().running_mean,
    "LazyInstanceNorm2d": lambda: torch.nn.LazyInstanceNorm2d(affine=True).weight,
    "state_dict": lambda: torch.nn.LazyLinear(3).state_dict()["weight"],
    "deep copy": lambda: copy.deepcopy(torch.nn.LazyLinear(3)).weight,
    "pickled": lambda: pickle.loads(pickle.dumps(torch.nn.LazyLinear(3))).weight,
    "of another dtype": lambda: torch.nn.LazyLinear(3, dtype=torch.bfloat16).weight,
}
DOORS: dict[str, Callable[[Any], Any]] = {
    "to_numpy": to_numpy,
    "a copy": lambda x: to_numpy(x, copy=True),
    "a tree": lambda x: to_numpy({"weight": x}),
    "strict": lambda x: to_numpy(x, policy="strict"),
    "from_dlpack": dlbridge.from_dlpack,
    "capsule": dlbridge.capsule,
    "to a memoryview": lambda x: dlbridge.to(x, "memoryview"),
    "a copy in torch": lambda x: dlbridge.to_torch(x, copy=True),
}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_what_is_not_initialised_is_refused_at_every_door(
    road: str, make: Callable[[], Any], door: Callable[[Any], Any]
) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="not initialised") as caught:
        door(make())
    assert caught.value.fix is not None and "materialize" in caught.value.fix


def test_explain_says_the_same_of_what_is_not_initialised(road: str) -> None:
    plan = dlbridge.explain(torch.nn.UninitializedBuffer(), "numpy")
    assert plan.refused and plan.fix is not None and "forward" in plan.fix


def test_it_stays_itself_on_its_way_to_torch(road: str) -> None:
    weight = torch.nn.LazyLinear(3).weight
    assert dlbridge.to_torch(weight) is weight


def test_the_fixes_work(road: str) -> None:
    by_pass, by_shape = torch.nn.LazyLinear(3), torch.nn.LazyLinear(3)
    by_pass(torch.ones(1, 2))
    by_shape.weight.materialize((3, 2))
    for module in (by_pass, by_shape):
        assert to_numpy(module.weight).shape == (3, 2)


class Meaning(torch.Tensor):
    """Has only __torch_function__, as torchvision's tv_tensors; it is told of nothing of ours."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"it was asked for {func}")


class Attributes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


class OwnParameter(torch.nn.Parameter):
    pass


def values() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3)


def meaning(x: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Meaning)


PLAIN: dict[str, Callable[[], Any]] = {
    "as_subclass": lambda: values().as_subclass(Attributes),
    "_make_subclass": lambda: torch.Tensor._make_subclass(Attributes, values()),
    "with a __torch_function__ that raises": lambda: meaning(values()),
    "the same, transposed": lambda: meaning(values().t()),
    "the same, a conjugate": lambda: meaning(torch.complex(values(), values()).conj()),
    "the same, in a graph": lambda: meaning(values().requires_grad_()),
    "the same, without elements": lambda: meaning(values()[:0]),
    "a parameter's subclass": lambda: OwnParameter(values()),
    "a parameter of a subclass": lambda: torch.nn.Parameter(values().as_subclass(Attributes)),
    "an empty parameter": lambda: torch.nn.Parameter(values()[:0]),
}
if hasattr(torch.nn, "Buffer"):
    PLAIN["a buffer"] = lambda: torch.nn.Buffer(values())


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_a_subclass_without_rules_for_its_memory_is_plain(
    road: str, make: Callable[[], Any]
) -> None:
    x = make()
    with torch._C.DisableTorchFunctionSubclass():
        expected = x.detach().resolve_conj().numpy()
    for found in (to_numpy(x), to_numpy(x, copy=True), to_numpy(dlbridge.from_dlpack(x))):
        assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert dlbridge.explain(x, "numpy").refused is False


def resized_to_nothing() -> torch.Tensor:
    x = values().clone()
    x.untyped_storage().resize_(0)
    return x


def masked() -> Any:
    return torch.masked.masked_tensor(values(), values() > 2)


def in_parts() -> Any:
    from torch.distributed._tensor import DeviceMesh, distribute_tensor  # by torch 2.4 too
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    return distribute_tensor(values(), DeviceMesh("cpu", [0, 1]))


# Each with what its fix names, if anything brings its values.
OTHERS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "resized to nothing": (resized_to_nothing, None),
    "resized to nothing, a parameter": (lambda: torch.nn.Parameter(resized_to_nothing()), None),
    "resized to nothing, a subclass": (lambda: meaning(resized_to_nothing()), None),
    "meta, a parameter": (lambda: torch.nn.Parameter(values().to("meta")), None),
    "meta, not initialised": (lambda: torch.nn.LazyLinear(3, device="meta").weight, None),
    "meta, a subclass": (lambda: meaning(values().to("meta")), None),
    "masked": (masked, "get_data"),
    "nested": (lambda: torch.nested.nested_tensor([values(), values()[:1]]), "padded"),
    "distributed": (in_parts, "full_tensor"),
    "quantised": (lambda: torch.quantize_per_tensor(values(), 1.0, 0, torch.qint8), "dequantize"),
}


@pytest.mark.filterwarnings("ignore")  # prototypes warn
@pytest.mark.parametrize("make, fix", OTHERS.values(), ids=OTHERS)
def test_what_has_its_values_elsewhere_or_none_is_refused(
    road: str, make: Callable[[], Any], fix: str | None
) -> None:
    x = make()
    for door in DOORS.values():
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            door(x)
        assert caught.value.reasons
        assert fix is None or (caught.value.fix is not None and fix in caught.value.fix)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
@pytest.mark.filterwarnings("ignore")  # sparse CSR is a prototype
def test_layouts_inside_a_forward_mode_level_are_what_they_are_outside(
    road: str, layout: str
) -> None:
    with torch.autograd.forward_ad.dual_level():
        x = getattr(torch.eye(3), layout)()
        assert dlbridge.to_torch(x) is x
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(x)
        assert dlbridge.explain(x, "numpy").refused
