"""Functions that were made of functions go where those could go: pickle, cloudpickle, copies."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import run_child

import dlbridge

MAKERS: dict[str, Callable[[Any], Any]] = {
    "numpy_function": dlbridge.numpy_function,
    "numpy_function with options": dlbridge.numpy_function(differentiable=False),
    "torch_function": dlbridge.torch_function,
    "accepts numpy": dlbridge.accepts("numpy"),
    "accepts a module": dlbridge.accepts(np, policy="host"),
    "accepts torch": dlbridge.accepts("torch", policy=dlbridge.strict),
}


def twice(a: Any) -> Any:
    return a * 2


@dlbridge.numpy_function
def decorated(a: Any) -> Any:
    return a * 2


@decorated.backward
def of_decorated(context: Any, gradient: Any) -> Any:
    return gradient * 2


@dlbridge.accepts("numpy")
def accepting(a: Any) -> Any:
    return a * 2


@dlbridge.torch_function
def of_torch(a: Any) -> Any:
    return a * 2


class Model:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    @dlbridge.numpy_function
    def scaled(self, a: Any) -> Any:
        return a * self.factor

    @dlbridge.accepts("numpy")
    def accepted(self, a: Any) -> Any:
        return a * self.factor

    @staticmethod
    @dlbridge.torch_function
    def doubled(a: Any) -> Any:
        return a * 2


def called(function: Any) -> list[float]:
    return dlbridge.to_numpy(function(torch.tensor([1.0, 2.0]))).tolist()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("inner", [twice, functools.partial(twice), np.negative, Model(2).__init__])
def test_it_is_pickled_where_the_inner_one_can_be(name: str, inner: Any, protocol: int) -> None:
    function = MAKERS[name](inner)
    again = pickle.loads(pickle.dumps(function, protocol))
    assert type(again) is type(function)
    assert again.__qualname__ == function.__qualname__
    if inner is twice:
        assert called(again) == called(function) == [2, 4]


@pytest.mark.parametrize("function", [decorated, accepting, of_torch, Model.doubled])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_found_by_its_name_comes_back_itself(function: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(function, protocol)) is function


@pytest.mark.parametrize(
    "function", [decorated, accepting, of_torch, MAKERS["torch_function"](twice)]
)
def test_copies_of_functions_are_the_same_function(function: Any) -> None:
    assert copy.copy(function) is function and copy.deepcopy([function])[0] is function


@pytest.mark.parametrize("name", MAKERS)
def test_a_lambda_cannot_be_pickled_and_says_so(name: str) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(MAKERS[name](lambda a: a * 2))


def test_methods_are_bound_and_sent_with_their_object() -> None:
    model = Model(3)
    for method in (model.accepted, pickle.loads(pickle.dumps(model.accepted))):
        assert called(method) == [3, 6]
    assert called(pickle.loads(pickle.dumps(model.doubled))) == [2, 4]


def test_a_gradient_goes_with_its_function() -> None:
    function = dlbridge.numpy_function(twice, returns="a")
    pickle.dumps(function)
    function.backward(of_decorated)
    again = pickle.loads(pickle.dumps(function))
    assert again.gradient is of_decorated and again.returns == "a"
    x = torch.ones(2, requires_grad=True)
    again(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2]


def test_what_returns_like_gives_can_be_pickled() -> None:
    like = pickle.loads(pickle.dumps(dlbridge.returns_like([torch.ones(1)])))
    assert isinstance(like(np.ones(2)), torch.Tensor)


def test_a_function_around_one_of_ours_keeps_both() -> None:
    outer = dlbridge.torch_function(accepting)
    assert outer.function is accepting and called(outer) == [2, 4]
    assert called(pickle.loads(pickle.dumps(outer))) == [2, 4]
    attributed = dlbridge.accepts("numpy")(decorated)
    assert called(attributed) == called(pickle.loads(pickle.dumps(attributed))) == [2, 4]


DUMPED = """
import sys, {module} as pickle, numpy as np, dlbridge

@dlbridge.numpy_function
def twice(a):
    return a * factor
@twice.backward
def of_twice(context, gradient):
    return gradient * 3
@dlbridge.accepts("numpy")
def thrice(a):
    return twice.function(a) + a
factor = 2
made = [twice, thrice, dlbridge.torch_function(lambda t: t * factor)]
made.append(dlbridge.accepts(np)(np.negative))
if __name__ == "__main__":
    pickle.dump(made, open(sys.argv[1], "wb"))
"""

LOADED = """
import pickle, sys, torch
made = pickle.load(open(sys.argv[1], "rb"))
print([f(torch.ones(1)).tolist() for f in made])
x = torch.ones(1, requires_grad=True)
made[0](x).backward()
print(x.grad.tolist())
"""


def test_cloudpickle_sends_functions_of_a_notebook_by_value(tmp_path: Path) -> None:
    """As Ray and Dask do: no module of that name is where they arrive."""
    pytest.importorskip("cloudpickle")
    run_child(DUMPED.format(module="cloudpickle"), str(tmp_path / "made"))
    assert run_child(LOADED, str(tmp_path / "made")).split("\n")[:2] == [
        "[[2.0], [3.0], [2.0], [-1.0]]",
        "[3.0]",
    ]


def test_cloudpickle_sends_functions_of_a_module_by_name() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    for function in (decorated, accepting, of_torch):
        assert pickle.loads(cloudpickle.dumps(function)) is function


def test_pickle_sends_functions_of_a_script_by_name() -> None:
    """As a DataLoader's workers need it, which import the script again."""
    script = DUMPED.format(module="pickle").partition("made =")[0] + (
        "for each in (twice, thrice): assert pickle.loads(pickle.dumps(each)) is each"
    )
    run_child(script)
