"""NumPy inside torch with gradients, torch inside NumPy, and the same for JAX."""

from __future__ import annotations

import functools
import inspect
import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import torch
from dlb_support import run_child, shares
from scipy import ndimage, optimize
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.autograd.gradcheck import GradcheckError

import dlbridge

pytestmark = pytest.mark.keeps_sources  # what JAX and torch.compile traced


@dlbridge.numpy_function(returns="image")
def smooth(image: Any, sigma: float = 1.0) -> Any:
    assert isinstance(image, np.ndarray) and not image.flags.writeable
    return ndimage.gaussian_filter(image, sigma, mode="constant")


@smooth.backward
def smooth_backward(context: Any, gradient: Any) -> Any:
    assert context.needed == (True, False)
    # A symmetric filter with zeros around is its own adjoint.
    return ndimage.gaussian_filter(gradient, context.inputs[1], mode="constant"), None


@dlbridge.numpy_function
def sum_and_product(a: Any, b: Any) -> Any:
    return a + b, a * b


@sum_and_product.backward
def sum_and_product_backward(context: Any, of_sum: Any, of_product: Any) -> Any:
    a, b = context.inputs
    return of_sum + of_product * b, of_sum + of_product * a


@dlbridge.numpy_function
def sine(x: Any) -> Any:
    return np.sin(x)


@dlbridge.torch_function
def energy(x: torch.Tensor) -> torch.Tensor:
    return (x**4 - 8 * x**2 + 3 * x).sum()


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(*shape, dtype=dtype).requires_grad_()


# --- values and memory --------------------------------------------------------------------------


def test_inputs_are_views_and_outputs_share_memory() -> None:
    seen: list[Any] = []

    @dlbridge.numpy_function
    def double(x: Any) -> Any:
        made = x * 2
        seen.extend((x, made))
        return made

    tensor = torch.arange(3.0)
    result = double(tensor)
    assert result.tolist() == [0.0, 2.0, 4.0]
    given, made = seen
    assert shares(given, tensor.numpy()) and not given.flags.writeable
    assert shares(made, result.numpy())
    seen.clear()


def test_a_call_makes_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as the rest of a call on small tensors."""
    x = leaf(4, 4)
    monkeypatch.setattr(inspect, "signature", None)
    smooth(x).sum().backward()
    assert x.grad is not None


def test_an_input_that_is_given_back_becomes_a_copy() -> None:
    @dlbridge.numpy_function
    def part(x: Any) -> Any:
        return x[1:]

    tensor = torch.arange(3.0)
    result = part(tensor)
    result += 1
    assert tensor.tolist() == [0.0, 1.0, 2.0] and result.tolist() == [2.0, 3.0]


def test_outputs_of_one_memory_become_tensors_of_their_own() -> None:
    @dlbridge.numpy_function
    def twice(x: Any) -> Any:
        made = x * 2
        return made, made, made[1:], made[:0]

    first, second, third, _ = twice(torch.arange(3.0))
    first.zero_()  # autograd could not tell the others
    assert second.tolist() == [0.0, 2.0, 4.0] and third.tolist() == [2.0, 4.0]
    second.zero_()
    assert third.tolist() == [2.0, 4.0]


def test_the_ledger_names_the_line_of_the_call_and_of_backward() -> None:
    x = leaf(4, 4)
    with dlbridge.trace() as log:
        smooth(x).sum().backward()
    assert {each.file for each in log} == {__file__}
    assert {each.function for each in log} == {
        "test_the_ledger_names_the_line_of_the_call_and_of_backward"
    }
    assert log.total.copies == 0


def test_constants_arrays_and_names_of_arguments() -> None:
    x = torch.ones(3, 3)
    assert torch.equal(smooth(x, 2.0), smooth(x, sigma=2.0))
    assert torch.equal(smooth(image=x, sigma=1.0), smooth(x))
    mixed = sum_and_product(torch.ones(2), np.full(2, 3.0, dtype="f4"))
    assert [each.tolist() for each in mixed] == [[4.0, 4.0], [3.0, 3.0]]
    assert all(isinstance(each, torch.Tensor) for each in mixed)
    plain = sum_and_product(np.ones(2), np.ones(2))
    assert all(type(each) is np.ndarray for each in plain)


@dlbridge.numpy_function(returns="x")
def scaled(x: Any, *, by: float = 2.0, weights: Any = None) -> Any:
    return x * by * (1 if weights is None else weights)


@scaled.backward
def scaled_backward(context: Any, gradient: Any) -> Any:
    x, by, weights = context.inputs
    of_x = gradient * by * (1 if weights is None else weights)
    return (of_x, None, gradient * by * x) if context.needed[2] else of_x


# CPython 3.13.0 alone is warned of.
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python:RuntimeWarning")
def test_arguments_that_go_by_name_only(road: str) -> None:
    x, weights = leaf(3), leaf(3)
    assert torch.equal(scaled(x), x * 2) and torch.equal(scaled(x, by=3.0), x * 3)
    assert torch.autograd.gradcheck(lambda x, w: scaled(x, weights=w), (x, weights))
    assert scaled(np.ones(2), weights=np.full(2, 5.0)).tolist() == [10, 10]
    compiled = torch.compile(
        lambda x, w: scaled(x, by=3.0, weights=w) + scaled(x, by=2.0),
        fullgraph=True,
        backend="eager",
    )
    assert torch.allclose(compiled(x, weights), x * 3 * weights + x * 2)
    found = torch.autograd.grad(compiled(x, weights).sum(), (x, weights))
    assert torch.allclose(found[0], 3 * weights + 2) and torch.allclose(found[1], 3 * x)

    @dlbridge.numpy_function
    def added(*each: Any, last: Any) -> Any:
        return sum(each) + last

    with pytest.warns(dlbridge.NotDifferentiable):
        assert added(x, x, last=weights).tolist() == (2 * x + weights).tolist()
    with pytest.raises(TypeError, match="missing a required argument: 'last'"):
        added(x)


def test_arguments_that_have_no_name_in_the_signature_are_refused() -> None:
    @dlbridge.numpy_function
    def options(x: Any, **more: Any) -> Any:
        return x * more["by"]

    with pytest.raises(TypeError, match=r"takes by by its \*\*.* write by there"):
        options(torch.ones(2), by=2.0)
    with pytest.raises(TypeError, match="wants a default for w"):
        dlbridge.numpy_function(returns="x")(lambda x, *, by=1.0, w: x * by * w)


def test_a_function_that_gives_its_answer_later_has_no_gradient() -> None:
    async def later(x: Any) -> Any:
        return x

    def each(x: Any) -> Any:
        yield x

    for function in (later, each):
        with pytest.raises(TypeError, match=r'accepts\("numpy"\) takes those'):
            dlbridge.numpy_function(function)
    with pytest.raises(TypeError, match="gave a generator"):
        dlbridge.torch_function(each).with_gradient(np.ones(2))


@pytest.mark.parametrize("nothing", [(), [], None])
def test_a_function_that_gives_nothing_is_told_so(nothing: Any) -> None:
    silent = dlbridge.numpy_function(lambda x: nothing)
    with pytest.raises(TypeError, match="gives an array, or a tuple of them"):
        silent(torch.ones(2))


def test_arguments_that_autograd_cannot_follow_are_refused() -> None:
    with pytest.raises(TypeError, match="argument of its own"):
        sine([torch.ones(2, requires_grad=True)])


def test_an_answer_that_is_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match="accepts"):
        dlbridge.numpy_function(lambda x: {"x": x})(torch.ones(2))


# --- gradients ----------------------------------------------------------------------------------


def test_the_gradient_is_right(road: str) -> None:
    x = leaf(5, 6)
    smooth(x * 3, 1.5).square().sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert torch.autograd.gradcheck(lambda t: smooth(t * 3, 1.5), (x,))
    assert dlbridge.gradcheck(smooth, x, 0.8)
    assert dlbridge.gradcheck(smooth, np.ones((3, 4), dtype="f4"), 0.8)
    assert dlbridge.gradcheck(sum_and_product, leaf(3), leaf(3))


def test_a_wrong_gradient_is_found() -> None:
    @dlbridge.numpy_function
    def cube(x: Any) -> Any:
        return x**3

    @cube.backward
    def _(context: Any, gradient: Any) -> Any:
        return gradient * 2 * context.inputs[0] ** 2  # 3 is right

    with pytest.raises(GradcheckError):
        dlbridge.gradcheck(cube, leaf(3))
    assert not dlbridge.gradcheck(cube, leaf(3), raise_exception=False)


def test_without_a_gradient_the_outputs_require_none_and_a_warning_says_so() -> None:
    x = leaf(3)
    with pytest.warns(dlbridge.NotDifferentiable, match=r"@sine\.backward") as caught:
        result = sine(x)
    assert not result.requires_grad
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"@sine\.backward"):
        dlbridge.gradcheck(sine, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            sine(x)
        sine(x.detach())
        dlbridge.numpy_function(np.cos, differentiable=False)(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's own, on its first jvp
def test_forward_mode_is_told_too_that_there_is_no_gradient() -> None:
    x = torch.arange(3.0)
    with pytest.warns(dlbridge.NotDifferentiable):
        torch.func.jacfwd(dlbridge.numpy_function(np.sin))(x)
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(x, torch.ones(3))
        with pytest.warns(dlbridge.NotDifferentiable):
            dlbridge.numpy_function(np.sin)(dual)
        dlbridge.numpy_function(np.sin, differentiable=False)(dual)
        dlbridge.numpy_function(np.sin)(x)


@pytest.mark.parametrize(
    ("gives", "says"),
    [(lambda g: (g, g), "2 values for 1 arguments"), (lambda g: g[1:], "has to have the argument")],
)
def test_a_gradient_of_the_wrong_form_is_refused(gives: Any, says: str) -> None:
    function = dlbridge.numpy_function(lambda x: x * 1)
    function.backward(lambda context, gradient: gives(gradient))
    with pytest.raises(ValueError, match=says):
        function(leaf(3)).sum().backward()


def test_a_gradient_is_a_function() -> None:
    with pytest.raises(TypeError, match="a function, not int"):
        dlbridge.numpy_function(np.sin).backward(3)  # type: ignore[type-var]


def test_only_the_gradients_that_are_asked_for_are_delivered() -> None:
    asked: list[Any] = []

    @dlbridge.numpy_function
    def multiply(a: Any, b: Any) -> Any:
        return a * b

    @multiply.backward
    def _(context: Any, gradient: Any) -> Any:
        asked.append(context.needed)
        return gradient * context.inputs[1], None

    a, b = leaf(3), torch.full((3,), 2.0, dtype=torch.float64)
    multiply(a, b).sum().backward()
    assert asked == [(True, False)]
    assert a.grad is not None and a.grad.tolist() == [2.0] * 3 and b.grad is None


def test_a_backward_lets_go_of_what_was_saved() -> None:
    double = dlbridge.numpy_function(lambda x: x * 2)
    double.backward(lambda context, gradient: gradient * 2)
    x = leaf(3)
    middle = x * 1
    y = double(middle)
    held = weakref.ref(middle)
    del middle
    y.sum().backward()
    assert held() is None and y.requires_grad


@pytest.mark.parametrize("compiled", [False, True])
def test_autograd_adds_to_a_gradient_that_nobody_else_has(compiled: bool) -> None:
    kept = np.full(3, 2.0)

    @dlbridge.numpy_function(returns="a")
    def function(a: Any, b: Any, c: Any) -> Any:
        return 2 * a + 2 * b + 2 * c

    @function.backward
    def _(context: Any, gradient: Any) -> Any:
        same = 2 * gradient
        return same, same, kept

    called: Any = torch.compile(function, backend="aot_eager") if compiled else function
    leaves = [leaf(3) for _ in range(3)]
    for _ in range(2):
        called(*leaves).sum().backward()
        called(leaves[0], leaves[0], leaves[2]).sum().backward()
    assert [each.grad.tolist() for each in leaves] == [[12.0] * 3, [4.0] * 3, [8.0] * 3]
    assert kept.tolist() == [2.0] * 3


def test_an_input_that_was_modified_makes_backward_raise() -> None:
    x = leaf(3) * 1
    y = sum_and_product(x, x)[1]
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_integer_outputs_have_no_gradient() -> None:
    @dlbridge.numpy_function
    def both(x: Any) -> Any:
        return x * 2, np.argsort(x)

    both.backward(lambda context, gradient, _: gradient * 2)
    values, order = both(leaf(3))
    assert values.requires_grad and not order.requires_grad
    assert dlbridge.gradcheck(lambda x: both(x)[0], leaf(3))


def test_differentiating_twice_is_refused_in_words() -> None:
    x = leaf(3)
    (first,) = torch.autograd.grad(sum_and_product(x, x)[1].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        first.sum().backward()


# --- transforms, compile, workers, autocast -----------------------------------------------------


def test_under_vmap_and_grad_of_torch_func() -> None:
    batch = torch.rand(4, 5, 5)
    one_by_one = torch.stack([smooth(item) for item in batch])
    assert torch.equal(torch.vmap(smooth)(batch), one_by_one)
    assert torch.equal(torch.vmap(smooth, in_dims=2)(batch.movedim(0, 2)), one_by_one)
    gradient = torch.vmap(torch.func.grad(lambda image: smooth(image).square().sum()))(batch)
    expected = batch.clone().requires_grad_()
    torch.stack([smooth(item) for item in expected]).square().sum().backward()
    assert expected.grad is not None and torch.allclose(gradient, expected.grad)
    with pytest.raises(ValueError, match="each item of the batch"):
        torch.vmap(smooth)(batch[:0])


@pytest.mark.parametrize("create_graph", [False, True])
def test_under_the_older_vmap_of_autograds_own(create_graph: bool) -> None:
    x, y = leaf(3), leaf(3)
    jacobian = functools.partial(
        torch.autograd.functional.jacobian, sum_and_product, (x, y), create_graph=create_graph
    )
    for one, vectorized in zip(jacobian(), jacobian(vectorize=True), strict=True):
        assert all(map(torch.equal, one, vectorized))
    outputs = sum_and_product(x, y)
    batch = torch.eye(3, dtype=x.dtype)
    # Of the other output there is none, and one input needs none.
    (found,) = torch.autograd.grad(outputs[1], x, batch, is_grads_batched=True)
    assert torch.equal(found, torch.diag(y.detach()))


def model(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return smooth(x * 2, sigma).relu() + 1


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_torch_compile_makes_one_graph_of_it() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x, y = leaf(5, 5), leaf(5, 5)
    for sigma in (1.0, 2.0):
        x.grad = y.grad = None
        compiled(x, sigma).sum().backward()
        model(y, sigma).sum().backward()
        assert x.grad is not None and y.grad is not None and torch.allclose(x.grad, y.grad)
    assert counter.frame_count >= 1
    explained = torch._dynamo.explain(model)(leaf(5, 5), 1.0)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_torch_compile_with_its_own_backend(tmp_path: Path) -> None:
    """In a module of the name __main__, and with shapes that change.

    Twice: the third process takes the compiled graphs of the first from the disk. All three are
    forked from one that has imported the compiler, which takes longer than to use it.
    """
    out = run_child(
        """
import gc, os, sys
os.environ |= {"TORCHINDUCTOR_CACHE_DIR": sys.argv[1], "TORCHINDUCTOR_COMPILE_THREADS": "1"}
import dlbridge, torch, torch._inductor.compile_fx
from scipy import ndimage
torch._inductor.config.cpp.vec_isa_ok = False  # to ask for vectors is to compile programs

gc.freeze()  # or each of them would look through all of the compiler at its end
for sigma in (2.5, 1.5, 2.5):
    if os.fork() == 0:
        break
    assert os.wait()[1] == 0
else:
    os._exit(0)

@dlbridge.numpy_function(returns="x")
def smooth(x, sigma: float = 1.0):
    return ndimage.gaussian_filter(x, sigma, mode="constant")

smooth.backward(lambda c, g: (ndimage.gaussian_filter(g, c.inputs[1], mode="constant"), None))

model = eval(f"lambda x: (smooth(x.sin() * 2, {sigma}).relu() + 1).sum()")
compiled = torch.compile(model, fullgraph=True, dynamic=True)
for size in (6, 9):
    x = torch.rand(size, size, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    compiled(x).backward()
    model(y).backward()
    print(torch.allclose(x.grad, y.grad, atol=1e-6))
""",
        str(tmp_path),
        timeout=280,
    )
    assert out == "True\n" * 6


@pytest.mark.filterwarnings("ignore")
def test_torch_compile_breaks_the_graph_where_nothing_is_declared() -> None:
    torch._dynamo.reset()
    explained = torch._dynamo.explain(lambda x: sum_and_product(x * 2, x)[0] + 1)(torch.ones(3))
    assert explained.graph_break_count >= 1
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda x: sine(x), fullgraph=True, backend="eager")(torch.ones(3))


@pytest.mark.filterwarnings("ignore")
def test_the_operator_passes_torchs_own_checks() -> None:
    for tensor in (torch.rand(4, 4), torch.rand(4, 4, requires_grad=True)):
        torch.library.opcheck(smooth.compiled.operator, (tensor, 1.0))


def test_a_declaration_that_does_not_hold_is_found() -> None:
    halved = dlbridge.numpy_function(lambda x: x[::2] * 1, returns="x")
    with pytest.raises(ValueError, match="declares"):
        halved.compiled.operator(torch.ones(4))
    with pytest.raises(ValueError, match="names no argument"):
        dlbridge.numpy_function(lambda x: x, returns="y").declared((torch.ones(1),))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_gradient_may_lie_in_any_order() -> None:
    @dlbridge.numpy_function(returns="x")
    def double(x: Any) -> Any:
        return x * 2

    @double.backward
    def _(context: Any, gradient: Any) -> Any:
        return np.asfortranarray(gradient * 2)

    x, weight = leaf(2, 3), torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    torch._dynamo.reset()
    torch.compile(lambda x: (double(x * 1) * weight).sum())(x).backward()
    assert x.grad is not None and torch.equal(x.grad, 2 * weight)
    double.backward(lambda context, gradient: None)
    torch._dynamo.reset()
    torch.compile(lambda x: double(x.T).sum())(x).backward()
    assert torch.equal(x.grad, 2 * weight)


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_may_have_no_gradient_or_no_tensor() -> None:
    double = dlbridge.numpy_function(lambda x: x * 2, returns="x", differentiable=False)
    x = leaf(3)
    y = compiled(lambda x: double(x) + double(x=x) + x)(x)
    y.sum().backward()
    assert torch.equal(y, 5 * x) and x.grad is not None and x.grad.tolist() == [1, 1, 1]
    ones = dlbridge.numpy_function(lambda n=3: np.ones(n), returns=lambda n=3: ((n,), "float64"))
    assert compiled(lambda: ones(2))().tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore")
def test_a_method_ends_the_graph() -> None:
    class Model(torch.nn.Module):
        factor = 2.0

        @dlbridge.numpy_function(returns="x")
        def scaled(self, x: Any) -> Any:
            return x * self.factor

        def forward(self, x: torch.Tensor) -> Any:
            return self.scaled(x + 1) + 1

    torch._dynamo.reset()
    assert torch.compile(Model(), backend="aot_eager")(torch.ones(2)).tolist() == [5, 5]


def tall(x: Any, shape: list[int]) -> Any:
    return x.reshape(shape)


# What an annotation is where annotations are no texts.
tall.__annotations__ = {"x": Any, "shape": list[int]}


def summed_over(annotation: Any) -> Any:
    def summed(x: Any, axis: Any = None) -> Any:
        return np.cumsum(x, axis).reshape(x.shape)

    summed.__annotations__["axis"] = annotation
    return summed


@pytest.mark.filterwarnings("ignore")
def test_an_operator_takes_what_a_signature_may_say() -> None:
    x = torch.arange(2.0)
    reshaped = dlbridge.numpy_function(tall, returns=lambda x, shape: (tuple(shape), x.dtype))
    assert compiled(lambda x: reshaped(x, [2, 1]))(x).tolist() == [[0], [1]]
    for annotation in (int | None, "int | None", Optional[int]):  # noqa: UP045
        summed = dlbridge.numpy_function(summed_over(annotation), returns="x")
        both = compiled(lambda x: (summed(x, 0), summed(x)))(torch.ones(2, 2))  # noqa: B023
        assert [each.tolist() for each in both] == [[[1, 1], [2, 2]], [[1, 2], [3, 4]]]
    for default in ((2, 1.5), [3, 2.0], (4, 5), 'a "text"\\', True, -1.5, None):
        met: list[Any] = []

        def function(x: Any, option=default) -> Any:  # type: ignore[no-untyped-def]
            met.append(option)  # noqa: B023
            return x * 2

        run = dlbridge.numpy_function(function, returns="x")
        assert compiled(lambda x: run(x))(x).tolist() == [0, 2]  # noqa: B023
        assert met == [list(default) if isinstance(default, tuple) else default] or met == [default]
    for wrong in (float("inf"), 2j, {}, [float("nan")], (True, False), ["a"], (None,), 2**64):
        with pytest.raises(TypeError, match="the defaults that an operator"):
            dlbridge.numpy_function(lambda x, option=wrong: x, returns="x")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "dtype", [float, "f8", "float64", np.float64, np.dtype("f8"), torch.float64]
)
def test_a_declared_dtype_is_numpys(dtype: Any) -> None:
    wide = dlbridge.numpy_function(lambda x: x.astype("f8"), returns=lambda x: (x.shape, dtype))
    assert compiled(lambda x: wide(x))(torch.ones(2)).dtype is torch.float64


def test_what_cannot_be_declared_is_told_so_at_once() -> None:
    with pytest.raises(ValueError, match="names no argument; use one of 'x'"):
        dlbridge.numpy_function(lambda x: x, returns="y")
    with pytest.raises(TypeError, match="returns is the name of an argument, or a function"):
        dlbridge.numpy_function(lambda x: x, returns=3)
    wrong = dlbridge.numpy_function(lambda x: x, returns=lambda x: (x.shape, "float7"))
    with pytest.raises(TypeError, match="no dtype of torch's: 'float7'"):
        wrong.compiled.operator(torch.ones(1))


def test_in_the_workers_of_a_data_loader() -> None:
    out = run_child(
        """
import numpy as np, torch, dlbridge
from scipy import ndimage

@dlbridge.numpy_function(returns="image")
def smooth(image, sigma=1.0):
    return ndimage.gaussian_filter(image, sigma)

class Smoothed(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, index):
        return smooth(torch.full((4, 4), float(index)))

for workers in (0, 2):
    for batch in torch.utils.data.DataLoader(Smoothed(), batch_size=3, num_workers=workers):
        print(tuple(batch.shape), batch.mean().item())
"""
    )
    assert out == "(3, 4, 4) 1.0\n(3, 4, 4) 4.0\n" * 2


def test_it_can_be_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(smooth)) is smooth
    assert pickle.loads(pickle.dumps(energy)) is energy


def test_under_autocast_low_precision_arrives_as_float32() -> None:
    linear = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = linear(torch.rand(5, 5))
        result = smooth(hidden)
    assert (hidden.dtype, result.dtype) == (torch.bfloat16, torch.float32)
    result.sum().backward()
    assert linear.weight.grad is not None and linear.weight.grad.dtype == torch.float32


# --- torch inside NumPy -------------------------------------------------------------------------


def test_a_function_of_tensors_takes_arrays() -> None:
    @dlbridge.torch_function
    def halves(x: torch.Tensor) -> Any:
        assert isinstance(x, torch.Tensor)
        return {"halves": x / 2, "rank": x.ndim}

    result = halves(np.ones((2, 3)))
    assert type(result["halves"]) is np.ndarray and result["rank"] == 2
    assert isinstance(halves(torch.ones(3))["halves"], torch.Tensor)


def test_its_gradient_serves_scipy() -> None:
    value, (gradient,) = energy.with_gradient(np.array([1.0, 2.0]))
    assert value == -4.0 + -10.0 and gradient.tolist() == [-9.0, 3.0]

    def value_and_gradient(x: Any) -> Any:
        value, (gradient,) = energy.with_gradient(x)
        return value, gradient

    found = optimize.minimize(value_and_gradient, np.array([1.0, -1.0]), jac=True)
    assert found.success
    assert np.allclose(4 * found.x**3 - 16 * found.x + 3, 0, atol=1e-4)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: torch.ones(2, requires_grad=True) * 2,
        lambda: torch.tensor([1 + 2j, 3]).conj(),
        lambda: torch.ones(2, dtype=torch.bfloat16),
        lambda: dlbridge.from_dlpack(np.arange(2)),
    ],
)
def test_it_may_answer_with_an_array_of_another_library(answer: Any) -> None:
    given = dlbridge.numpy_function(lambda x: answer())(torch.ones(2))
    assert given.dtype == dlbridge.to_torch(answer()).dtype
    assert given.tolist() == dlbridge.to_torch(answer()).tolist()


def test_a_sparse_answer_is_refused_as_one() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(dlbridge.ConversionRefused, match=r"x\.toarray\(\)"):
        dlbridge.numpy_function(sparse.csr_array)(torch.eye(2))


# --- JAX ----------------------------------------------------------------------------------------


def test_jax_arrays_by_a_callback() -> None:
    jax = pytest.importorskip("jax")
    image = jax.numpy.eye(4)
    expected = ndimage.gaussian_filter(np.eye(4, dtype="f4"), 1.0, mode="constant")
    assert np.allclose(smooth(image), expected)
    assert np.allclose(jax.jit(smooth)(image), expected)
    assert np.allclose(jax.vmap(smooth)(jax.numpy.stack([image] * 2))[1], expected)
    gradient = jax.grad(lambda x: (smooth(x, 1.0) ** 2).sum())(image)
    tensor = torch.eye(4, requires_grad=True)
    smooth(tensor).square().sum().backward()
    assert tensor.grad is not None and np.allclose(gradient, tensor.grad.numpy(), atol=1e-6)
    with pytest.raises(TypeError, match="returns="):
        jax.jit(sine)(image)


def test_without_torch_nothing_of_it_is_imported() -> None:
    out = run_child(
        """
import sys
import dlbridge, numpy as np
f = dlbridge.numpy_function(lambda x: x + 1, returns="x")
print(f(np.ones(2)), "torch" in sys.modules)
"""
    )
    assert out == "[2. 2.] False\n"


class Quantity(np.ndarray):
    unit = "m"


@pytest.mark.parametrize("kind", ["mask", "unit"])
def test_what_an_answer_means_beside_its_values_is_not_dropped(kind: str) -> None:
    def beside(a: np.ndarray) -> np.ndarray:
        return np.ma.array(a, mask=[False, True]) if kind == "mask" else a.view(Quantity)

    with pytest.raises(dlbridge.ConversionRefused, match=f"with a {kind}"):
        dlbridge.numpy_function(beside)(torch.ones(2))
    function = dlbridge.numpy_function(lambda a: a * 2)
    function.backward(lambda context, gradient: beside(gradient))
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(dlbridge.ConversionRefused, match=f"with a {kind}"):
        function(x).sum().backward()


def test_with_gradient_takes_what_a_call_takes() -> None:
    @dlbridge.torch_function
    def energy(x: Any, k: Any = 1.0) -> Any:
        return (x["a"] ** 2 * k).sum() if isinstance(x, dict) else (x**2 * k).sum()

    value, (gradient,) = energy.with_gradient(
        {"a": np.array([1.0, 2.0]), "n": np.arange(2), "b": 3}
    )
    assert value == 5 and gradient["a"].tolist() == [2, 4]
    assert isinstance(gradient["a"], np.ndarray) and gradient["n"] is gradient["b"] is None
    value, (gradient,) = energy.with_gradient(np.ones(2), k=np.array([2.0, 3.0]))
    assert value == 5 and gradient.tolist() == [4, 6]
    value, (gradient,) = energy.with_gradient(np.float64(3))
    assert value == 9 and gradient == 6
    with torch.inference_mode():
        assert energy.with_gradient(np.ones(2))[0] == 2
        value, (gradient, of_count) = energy.with_gradient(torch.ones(2), torch.tensor(3))
        assert value == 6 and gradient.tolist() == [6, 6] and of_count is None
    for nothing in (np.arange(3), 3, {"a": 1}):
        with pytest.raises(TypeError, match="needs an array of floats"):
            energy.with_gradient(nothing)
