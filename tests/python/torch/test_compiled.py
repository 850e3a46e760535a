"""to_numpy() and to_torch() in functions that torch compiles or exports: traced, not left."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import run_child

import dlbridge
from dlbridge import to_numpy, to_torch

pytestmark = [
    pytest.mark.keeps_sources,  # torch's compiler keeps tensors of its own
    pytest.mark.skipif(
        "reason" not in (torch.compiler.disable.__kwdefaults__ or ()),
        reason="this torch's compiler is too old to be taught: test_inside_torch.py asks it",
    ),
]


@pytest.fixture(autouse=True)
def nothing_compiled_is_kept() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def tensor() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3)


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor() / 7)


def complex_tensor() -> torch.Tensor:
    return torch.complex(tensor(), -tensor())


def array() -> np.ndarray:
    return np.linspace(-1, 1, 6).reshape(3, 2)


CORPUS: list[tuple[Callable[..., Any], Callable[[], Any]]] = []


def case(make: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        CORPUS.append((function, make))
        return function

    return keep


@case(tensor)
def a_tensor_to_numpy(x: Any) -> Any:
    return to_numpy(x)


@case(array)
def an_array_to_torch(a: Any) -> Any:
    return to_torch(a)


@case(array)
def prepared_in_numpy(a: Any) -> Any:
    centred = (a - a.mean(axis=0)) / (a.std(axis=0) + 1e-6)
    return torch.relu(to_torch(centred)).sum()


@case(tensor)
def results_to_numpy(x: Any) -> Any:
    return to_numpy(torch.softmax(x, dim=1))


@case(tensor)
def numpy_in_the_middle(x: Any) -> Any:
    return to_torch(np.cumsum(to_numpy(x * 2), axis=1)).sin()


@case(parameter)
def a_parameter_is_detached(w: Any) -> Any:
    return to_torch(np.exp(to_numpy(w))) * 2


@case(parameter)
def a_graph_beside_an_array(w: Any) -> Any:
    return (w * to_torch(to_numpy(w))).sum()


@case(tensor)
def a_dict_to_numpy(x: Any) -> Any:
    return to_numpy({"x": x, "rows": [x[0], x[1]], "name": "x", "none": None, "n": (1, 2.5)})


@case(array)
def a_dict_to_torch(a: Any) -> Any:
    batch = to_torch({"a": a, "pair": (a[0], [a.T])})
    return batch["a"].sum() + batch["pair"][1][0].mean(), batch


@case(tensor)
def several_dtypes(x: Any) -> Any:
    return [to_numpy(x.to(t)) for t in (torch.int64, torch.uint8, torch.bool, torch.float16)]


@case(array)
def several_dtypes_back(a: Any) -> Any:
    return [to_torch(a.astype(t)) for t in ("i4", "u1", "f4", "?", "c8")]


@case(tensor)
def a_branch_on_the_shape(x: Any) -> Any:
    a = to_numpy(x)
    return to_torch(a.T if a.shape[0] > 2 else a[0])


@case(tensor)
def a_loop(x: Any) -> Any:
    for step in range(3):
        x = to_torch(to_numpy(x) + step)
    return x


@case(tensor)
def strided_views(x: Any) -> Any:
    return to_numpy(x.t()), to_numpy(x[:, ::2]), to_numpy(x[1:])


@case(tensor)
def no_dimensions_and_no_elements(x: Any) -> Any:
    return to_numpy(x.sum()), to_numpy(x[:0]), to_torch(to_numpy(x)[0, 0])


@case(complex_tensor)
def a_conjugate(z: Any) -> Any:
    return to_numpy(z.conj()), to_numpy(z.conj().imag)


@case(tensor)
def a_tensor_stays_itself(x: Any) -> Any:
    return to_torch(x) is x, to_torch(x) + 1


@case(array)
def an_array_stays_itself(a: Any) -> Any:
    return to_numpy(a) + 1


@case(tensor)
def copies(x: Any) -> Any:
    array = to_numpy(x, copy=True)
    array[0] = 7
    return array, to_torch(array, copy=True), to_torch(x, copy=True), x


@case(tensor)
def casts_that_hold_every_value(x: Any) -> Any:
    whole = x.to(torch.int16)
    return (
        to_numpy(x, dtype="float64"),
        to_numpy(whole, dtype=torch.int64),
        to_torch(to_numpy(x), dtype=np.float16),
        to_torch(whole, dtype=np.dtype("c8")),
        to_torch(x, dtype="float32"),
        to_numpy(x, dtype=float),
        to_torch(x, policy="host"),
        to_numpy(x, policy=dlbridge.host),
    )


@case(tensor)
def written_in_place(x: Any) -> Any:
    array = to_numpy(x)
    array += 1
    return x * 2, array


@case(tensor)
def called_by_another_function(x: Any) -> Any:
    def standardised(a: Any) -> Any:
        return to_numpy(to_torch(a) / 3)

    return standardised(to_numpy(x)), [standardised(row) for row in (x[0], x[1])]


def flat(result: Any) -> Any:
    """Types, dtypes and values, in order."""
    if isinstance(result, dict):
        return {key: flat(each) for key, each in result.items()}
    if isinstance(result, (list, tuple)):
        return type(result)(flat(each) for each in result)
    if isinstance(result, (np.ndarray, torch.Tensor)):
        grad = isinstance(result, torch.Tensor) and result.requires_grad
        values = result.detach().tolist() if grad else result.tolist()
        rounded = np.round(np.asarray(values, dtype=complex), 3).tolist()
        kind = np.ndarray if isinstance(result, np.ndarray) else torch.Tensor
        return kind, str(result.dtype), grad, tuple(result.shape), rounded
    return result


def compiled(function: Callable[..., Any], backend: str = "eager") -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend=backend)


@pytest.fixture
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Guards may run slower on Python")  # of 3.13.0 alone
        yield


# Inductor compiles C++ for each.
ON_INDUCTOR = (numpy_in_the_middle, a_parameter_is_detached, a_dict_to_numpy)


@pytest.mark.parametrize(
    "function, make, backend",
    [
        *(pytest.param(*each, "aot_eager", id=each[0].__name__) for each in CORPUS),
        *(
            pytest.param(*each, "inductor", id=f"{each[0].__name__}-inductor")
            for each in CORPUS
            if each[0] in ON_INDUCTOR
        ),
    ],
)
def test_a_compiled_function_is_one_graph_and_gives_the_same(
    no_warning: None, function: Callable[..., Any], make: Callable[[], Any], backend: str
) -> None:
    expected = flat(function(make()))
    torch._dynamo.utils.counters.clear()  # other tests break graphs
    with warnings.catch_warnings():
        if backend == "inductor":
            warnings.simplefilter("ignore")  # it says what it thinks of complex numbers, and others
        assert flat(compiled(function, backend)(make())) == expected
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_compiled_result_shares_memory_as_it_does_without_the_compiler(no_warning: None) -> None:
    x, a = tensor(), array()
    assert np.shares_memory(compiled(a_tensor_to_numpy)(x), x.numpy())
    assert compiled(an_array_to_torch)(a).data_ptr() == a.ctypes.data


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        array = to_numpy(self.linear(x))
        return self.linear(to_torch(array / np.abs(array).max()))


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_a_module_is_exported_with_numpy_inside() -> None:
    module, x = Scaled(), tensor()
    exported = torch.export.export(module, (x,), strict=True).module()
    torch.testing.assert_close(exported(2 * x), module(2 * x))


# What torch's doors cannot say: each in its own words, and what it is asked of.
OUTSIDE: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "another policy": (lambda x: to_numpy(x, policy="snapshot"), tensor),
    "the policy of a block": (lambda x: in_a_block(x), tensor),
    "a view or nothing": (lambda x: to_numpy(x, copy=False), tensor),
    "a dtype that NumPy lacks": (to_numpy, lambda: tensor().bfloat16()),
    "a cast to it": (lambda x: to_torch(x, dtype="bfloat16"), tensor),
    "a cast that may refuse values": (lambda x: to_numpy(x, dtype="int8"), tensor),
    "a cast in a tree": (lambda x: to_numpy([x], dtype="float64"), tensor),
    "a subclass": (to_numpy, lambda: tensor().as_subclass(Plain)),
    "no tensor at all": (lambda x: to_numpy([x.dim(), "a"]), tensor),
    "filling an array": (lambda x: to_numpy(x, out=np.empty((2, 3), "f4")), tensor),
    "a device": (lambda x: to_torch(x, device="cpu"), tensor),
    "to": (lambda x: dlbridge.to(x, "numpy"), tensor),
    "from_dlpack": (lambda x: to_torch(dlbridge.from_dlpack(x)), tensor),
    "explain": (lambda x: dlbridge.explain(x, "numpy").view, tensor),
}


class Plain(torch.Tensor):
    pass


def in_a_block(x: Any) -> Any:
    with dlbridge.policy("snapshot"):
        return to_numpy(x)


def outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return flat(function(argument))
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("function, make", OUTSIDE.values(), ids=OUTSIDE)
def test_what_torchs_doors_cannot_say_ends_the_graph_without_a_warning(
    no_warning: None, function: Callable[[Any], Any], make: Callable[[], Any]
) -> None:
    from torch._dynamo.testing import CompileCounter  # takes long, so not where tests are collected

    graphs = CompileCounter()

    def around(x: Any) -> Any:
        return function(x + 1), x + 2

    expected = outcome(around, make())
    assert outcome(torch.compile(around, backend=graphs), make()) == expected
    assert graphs.frame_count > 0
    # torch 2.8 ends it at a block in words of its own.
    words = "outside of what is compiled|SKIPPED INLINING .*__enter__"
    with pytest.raises(torch._dynamo.exc.Unsupported, match=words):
        compiled(around)(make())


def test_a_block_that_is_open_counts_for_what_was_compiled_before(no_warning: None) -> None:
    function = torch.compile(a_tensor_to_numpy, backend="eager")
    w = parameter()
    assert flat(function(w)) == flat(to_numpy(w))
    with dlbridge.policy("strict"), pytest.raises(dlbridge.ConversionRefused):
        function(w)
    with dlbridge.trace() as log:
        function(w)
    assert log.total.views == 1
    assert flat(function(w)) == flat(to_numpy(w))


INSIDE = """
@torch.compile(fullgraph=True, backend="eager")
def both(x):
    return dlbridge.to_torch(np.sin(dlbridge.to_numpy(x)))
print(both(torch.zeros(2, requires_grad=True)).tolist())
assert not any("dlbridge" in repr(finder) for finder in sys.meta_path)
"""
IMPORTS = {
    "dlbridge first": "import dlbridge, importlib.util; importlib.util.find_spec('torch._dynamo')\n"
    "import torch",
    "torch's compiler first": "import torch._dynamo, dlbridge",
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_a_compiled_function_may_be_the_first_that_meets_dlbridge(imports: str) -> None:
    assert run_child(f"import sys, numpy as np\n{imports}\n{INSIDE}").endswith("[0.0, 0.0]\n")


@pytest.mark.parametrize("block", ["policy('host')", "no_copies()", "trace()"])
def test_a_compiled_block_may_be_the_first_that_meets_a_tensor(block: str) -> None:
    out = run_child(
        f"""
import dlbridge, torch
def f(x):
    with dlbridge.{block}:
        return dlbridge.to_torch(dlbridge.to_numpy(x * 2))
print(torch.compile(f, backend="eager")(torch.ones(2)).tolist())
from dlbridge.ledger import blocks
assert not blocks.open_blocks
""",
    )
    assert out == "[2.0, 2.0]\n"
