"""Crossings while torch traces, fakes, transforms or watches: the same on both roads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import run_child, run_python
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import dlbridge
from dlbridge import to_numpy, to_torch

pytestmark = pytest.mark.keeps_sources  # torch's transforms and traces keep what they made


def array() -> np.ndarray:
    return np.linspace(-1, 1, 6, dtype="f4").reshape(2, 3)


def tensor() -> torch.Tensor:
    return torch.from_numpy(array())


# --- torch.jit.trace ----------------------------------------------------------------------------


def traced(function: Callable[..., Any]) -> list[warnings.WarningMessage]:
    """What TracerWarnings a trace of the function gives."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.jit.trace(function, torch.ones(2, 3), check_trace=False)
    return [each for each in told if issubclass(each.category, torch.jit.TracerWarning)]


# In a call of ours, and in torch's own of the same meaning.
LEAVING: dict[str, Callable[[torch.Tensor], Any]] = {
    "a view": to_numpy,
    "a copy": lambda x: to_numpy(x, copy=True),
    "a cast": lambda x: to_numpy(x, dtype="float64"),
    "a resolved bit": lambda x: to_numpy(torch.complex(x, x).conj()).real,
    "a parameter": lambda x: to_numpy(torch.nn.Parameter(torch.ones(2, 3))),
    "a plain subclass": lambda x: to_numpy(x.as_subclass(Plain)),
    "a tree": lambda x: to_numpy({"x": x})["x"],
    "to": lambda x: dlbridge.to(x, "numpy"),
}


class Plain(torch.Tensor):
    pass


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_a_tensor_that_leaves_a_trace_warns_as_numpy_of_torch_does(
    road: str, leave: Callable[[torch.Tensor], Any]
) -> None:
    def by_torch(x: torch.Tensor) -> torch.Tensor:
        x.numpy()
        return x + 1

    def by_us(x: torch.Tensor) -> torch.Tensor:
        leave(x)
        return x + 1

    (expected,), (found,) = traced(by_torch), traced(by_us)
    assert str(found.message) == str(expected.message)


@pytest.mark.leaves_behind  # torch keeps the constants of its traces
def test_an_array_that_comes_into_a_trace_warns_as_from_numpy_does(road: str) -> None:
    (expected,) = traced(lambda x: x + torch.from_numpy(array()))
    for enter in (to_torch, lambda a: to_torch([a])[0], lambda a: to_torch(a, copy=True)):
        (found,) = traced(lambda x, enter=enter: x + enter(array()))
        assert str(found.message) == str(expected.message)


def test_the_warning_names_the_line_and_comes_once_for_each(road: str) -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            to_numpy(x)
        to_numpy(x)
        return x + 1

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        torch.jit.trace(twice, torch.ones(2), check_trace=False)
    tracers = [each for each in told if issubclass(each.category, torch.jit.TracerWarning)]
    assert {each.filename for each in tracers} == {__file__}
    assert len({each.lineno for each in tracers}) == len(tracers) == 2


@pytest.mark.leaves_behind
def test_values_in_a_trace_are_what_they_are_without_one(road: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(lambda x: x * to_torch(to_numpy(x) + 1), tensor())
    assert torch.equal(module(tensor()), tensor() * (tensor() + 1))


def test_what_stays_in_the_trace_does_not_warn(road: str) -> None:
    assert traced(lambda x: to_torch(x) + 1) == []

    def explained(x: torch.Tensor) -> torch.Tensor:
        plan = dlbridge.explain(x, "numpy")
        assert plan.view and any("trace" in reason for reason in plan.reasons)
        assert not dlbridge.explain(torch.ones(2, device="meta"), "numpy").view
        return x + 1

    assert traced(explained) == []


def test_a_warning_that_is_an_error_reaches_the_caller_and_nothing_is_left(road: str) -> None:
    if road == "portable":
        pytest.skip("there torch warns by its own numpy(), which may swallow the error")
    raised: list[BaseException] = []

    def strict(x: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for cross in (to_numpy, lambda x: to_numpy(x, copy=True)):
                with pytest.raises(torch.jit.TracerWarning) as caught:
                    cross(x)
                raised.append(caught.value)
        return x + 1

    before = dlbridge._core.live_managed_tensors()
    traced(strict)
    assert len(raised) == 2
    assert dlbridge._core.live_managed_tensors() == before


# --- modes and transforms -----------------------------------------------------------------------


class Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Passing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no mode": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "default device meta": lambda: torch.device("meta"),
    "a dispatch mode": Watching,
    "a function mode": Passing,
    "anomaly detection": torch.autograd.detect_anomaly,
    "fake tensors": FakeTensorMode,
}

SOURCES: dict[str, Callable[[], Any]] = {
    "plain": tensor,
    "transposed": lambda: tensor().t(),
    "parameter": lambda: torch.nn.Parameter(tensor()),
    "conj": lambda: torch.complex(tensor(), tensor()).conj(),
    "neg": lambda: torch.complex(tensor(), tensor()).conj().imag,
    "subclass": lambda: tensor().as_subclass(Plain),
    "bfloat16": lambda: tensor().bfloat16(),
    "zero tensor": lambda: torch._efficientzerotensor((2, 3)),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Iterator[AbstractContextManager[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # detect_anomaly says that it is slow
        yield MODES[request.param]()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_real_tensor_crosses_the_same_in_every_mode(
    road: str, mode: AbstractContextManager[Any], make: Callable[[], Any]
) -> None:
    expected, x = to_numpy(make()), make()
    with mode:
        found = [to_numpy(x), to_numpy(dlbridge.from_dlpack(x)), to_numpy(x, copy=True)]
    for each in found:
        assert each.dtype == expected.dtype and each.tobytes() == expected.tobytes()
    assert found[0].flags.writeable == expected.flags.writeable


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_function_mode_sees_nothing_of_what_we_read(road: str, make: Callable[[], Any]) -> None:
    x = make()
    with Passing() as mode:
        to_numpy(x)
        to_numpy(x, copy=True)
        dlbridge.from_dlpack(x)
        dlbridge.explain(x, "numpy")
        to_torch(array())
    assert mode.seen == []


@pytest.mark.parametrize("make", [array, lambda: array()[::-1], lambda: array().T])
def test_an_array_becomes_what_from_numpy_makes_of_it_in_every_mode(
    road: str, mode: AbstractContextManager[Any], make: Callable[[], np.ndarray]
) -> None:
    with mode:
        expected = torch.from_numpy(np.ascontiguousarray(make()))
        found = [to_torch(make()), to_torch(make(), copy=True), to_torch([make()])[0]]
        for each in found:
            assert type(each) is type(expected)
            assert (each.device, each.dtype, each.shape) == (
                expected.device,
                expected.dtype,
                expected.shape,
            )
            assert each.is_inference() == expected.is_inference()
        sums = [(each + 1).sum() for each in (*found, expected)]
    if type(expected) is torch.Tensor:
        assert len({each.item() for each in sums}) == 1


def test_no_work_of_ours_is_shown_to_a_mode_that_watches(road: str) -> None:
    tensors = [make() for make in SOURCES.values()]
    with Watching() as watching:
        for each in tensors:
            to_numpy(each)
    assert watching.seen == []


def test_a_fake_tensor_is_refused_in_its_mode_and_out_of_it(road: str) -> None:
    with FakeTensorMode():
        fake = to_torch(array())
        assert type(fake) is FakeTensor
        with pytest.raises(dlbridge.ConversionRefused, match="FakeTensor"):
            to_numpy(fake)
    with pytest.raises(dlbridge.ConversionRefused, match="FakeTensor"):
        to_numpy(fake)


def test_a_default_device_leaves_results_where_their_source_is(road: str) -> None:
    torch.set_default_device("meta")
    try:
        assert to_torch(array()).device.type == "cpu"
        assert to_torch(array()[::-1]).device.type == "cpu"
        assert to_numpy(torch.ones(2, device="cpu")).tolist() == [1, 1]
    finally:
        torch.set_default_device(None)


FIRST = """
import torch, numpy as np, dlbridge
from torch._subclasses.fake_tensor import FakeTensorMode
x = torch.ones(2)
sub = x.as_subclass(type("Sub", (torch.Tensor,), {}))
with MODE:
    dlbridge._core.torch_road("portable")
    assert dlbridge.to_numpy(x).sum() == 2
assert dlbridge.to_numpy(sub).sum() == 2
try:
    dlbridge.to_numpy(torch.ones(2, device="meta").as_subclass(type(sub)))
except dlbridge.ConversionRefused:
    print("refused")
"""


@pytest.mark.parametrize("mode", ["torch.device('meta')", "FakeTensorMode()"])
def test_the_first_crossing_may_be_in_a_mode(mode: str) -> None:
    assert run_python("-c", FIRST.replace("MODE", mode)).endswith("refused\n")


def seen_by(convert: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    def function(x: torch.Tensor) -> torch.Tensor:
        convert(x)
        return (x * 2).sum()

    return function


TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "vmap": lambda f: torch.func.vmap(f)(tensor()),
    "vmap of vmap": lambda f: torch.func.vmap(torch.func.vmap(f))(tensor()[None]),
    "grad": lambda f: torch.func.grad(f)(tensor()),
    "vjp": lambda f: torch.func.vjp(f, tensor()),
    "jvp": lambda f: torch.func.jvp(f, (tensor(),), (tensor(),)),
    "jacrev": lambda f: torch.func.jacrev(f)(tensor()),
    "jacfwd": lambda f: torch.func.jacfwd(f)(tensor()),
    "hessian": lambda f: torch.func.hessian(f)(tensor()),
    "linearize": lambda f: torch.func.linearize(f, tensor()),
    "functionalize": lambda f: torch.func.functionalize(f)(tensor()),
    "make_fx with fake tensors": lambda f: make_fx(f, tracing_mode="fake")(tensor()),
    "make_fx with symbols": lambda f: make_fx(f, tracing_mode="symbolic")(tensor()),
    "export that is not strict": lambda f: torch.export.export(
        Calling(f), (tensor(),), strict=False
    ),
}


class Calling(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.filterwarnings("ignore")  # linearize warns of its own constants
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("copy", [None, True])
def test_what_exists_only_inside_a_transform_is_refused_with_words(
    road: str, transform: Callable[..., Any], copy: bool | None
) -> None:
    if transform is TRANSFORMS["linearize"]:
        pytest.skip("it calls the function with the tensor itself")
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        transform(seen_by(lambda x: to_numpy(x, copy=copy)))
    assert caught.value.reasons


@pytest.mark.leaves_behind  # torch keeps the constants of its graphs
@pytest.mark.filterwarnings("ignore")  # linearize warns of its own constants
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_an_array_may_be_used_inside_a_transform(road: str, transform: Callable[..., Any]) -> None:
    def function(convert: Callable[[Any], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
        def scaled(x: torch.Tensor) -> torch.Tensor:
            weights = convert(np.full((3,), 2, "f4"))
            weights.mul_(3)
            return (x * weights).sum()

        return scaled

    def values(result: Any) -> list[Any]:
        leaves = torch.utils._pytree.tree_leaves(result)
        return [each.tolist() for each in leaves if type(each) is torch.Tensor]

    assert values(transform(function(to_torch))) == values(transform(function(torch.from_numpy)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_what_lies_outside_of_a_transform_crosses_inside(
    road: str, transform: Callable[..., Any]
) -> None:
    if transform in [TRANSFORMS[name] for name in TRANSFORMS if name.startswith("export")]:
        pytest.skip("an export makes all that it meets fake")
    outer = torch.complex(tensor(), tensor()).conj()
    found: list[np.ndarray] = []
    transform(seen_by(lambda x: found.append(to_numpy(outer))))
    assert found[0].tobytes() == to_numpy(outer).tobytes()


# Of torch 2.4, by its own checkpoint.
@pytest.mark.filterwarnings("ignore:.*autocast.* is deprecated:FutureWarning")
def test_a_functional_call_and_a_checkpoint_convert_as_usual(road: str) -> None:
    module = Calling(lambda x: x * to_torch(np.full(3, 2, "f4")))
    x = tensor().requires_grad_()
    for call in (
        lambda: torch.func.functional_call(module, {}, (x,)),
        lambda: checkpoint(module, x, use_reentrant=False),
    ):
        (gradient,) = torch.autograd.grad(call().sum(), x)
        assert gradient.tolist() == [[2, 2, 2], [2, 2, 2]]


class Converted(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return {"x": to_torch(array() + index), "y": to_numpy(torch.full((2,), index))}


def test_workers_of_a_loader_convert_as_usual(road: str) -> None:
    loader = torch.utils.data.DataLoader(
        Converted(), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )
    batches = list(loader)
    assert [batch["y"].tolist() for batch in batches] == [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]
    assert torch.equal(batches[1]["x"][1], tensor() + 3)


# --- torch.compile ------------------------------------------------------------------------------
COMPILED = """
import dlbridge, torch
import torch._dynamo

@torch.compile(backend="eager")
def function(x):
    return dlbridge.to_torch(dlbridge.to_numpy(x * 2) + 1)

print(function(torch.ones(2)).tolist())
"""


def test_what_a_compiler_of_any_release_runs_may_cross(road: str) -> None:
    try:
        torch.compile(backend="eager")
    except RuntimeError as error:  # an older torch on a newer Python
        pytest.skip(str(error))
    assert run_child(COMPILED, road=road).endswith("[3.0, 3.0]\n")
