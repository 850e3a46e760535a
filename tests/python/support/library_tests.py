"""What is asked of every library, as a target and as a source. A library's file adds its own."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import dlbridge
from dlbridge import _registry

REFUSALS = (ValueError, TypeError, RuntimeError, BufferError)
VALUES = np.arange(24, dtype="f4").reshape(4, 6)


def aligned(array: np.ndarray, alignment: int = 64, offset: int = 0) -> np.ndarray:
    """The same values at an address that is a multiple of the alignment, plus the offset."""
    raw = np.zeros(array.nbytes + alignment + offset, "u1")
    start = -raw.ctypes.data % alignment + offset
    result = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


SOURCES: dict[str, Callable[[], np.ndarray]] = {
    "plain": lambda: aligned(VALUES),
    "offset slice": lambda: aligned(VALUES.ravel())[5:],
    "every second": lambda: aligned(VALUES)[::2, 1::3],
    "transposed": lambda: aligned(VALUES).T,
    "negative strides": lambda: aligned(VALUES)[::-1, ::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(3, dtype="f4"), (4, 3)),
    "overlapping": lambda: as_strided(np.arange(6, dtype="f4"), (4, 3), (4, 4)),
    "misaligned": lambda: aligned(VALUES, offset=1),
    "item-aligned only": lambda: aligned(VALUES, offset=4),
    "read-only": lambda: read_only(aligned(VALUES)),
    "read-only slice": lambda: read_only(aligned(VALUES))[1:, 2:],
    "0-d": lambda: aligned(np.array(3.5, "f4")),
    "one dimension": lambda: aligned(VALUES.ravel()),
    "empty": lambda: np.zeros((0, 3), "f4"),
    "empty slice": lambda: aligned(VALUES)[2:2],
    "size-1 dimensions": lambda: as_strided(aligned(VALUES), (1, 4, 1, 6), (7, 24, 999, 4)),
    "ten dimensions": lambda: aligned(VALUES).reshape((1,) * 8 + (4, 6)),
    "bytes": lambda: aligned(np.arange(256, dtype="u1").reshape(16, 16)),
    "bytes in three": lambda: aligned(np.arange(48, dtype="u1").reshape(4, 4, 3)),
}

# fmt: off
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64", "complex64", "complex128", "bfloat16", "float8_e3m4", "float8_e4m3",
    "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
# fmt: on


def of_dtype(name: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    count = math.prod(shape)
    return aligned((np.arange(count) % 3 + 1).astype(dtype).reshape(shape))


def same_values(found: Any, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def shares(managed_or_array: Any, array: np.ndarray) -> bool:
    return bool(np.shares_memory(dlbridge.to_numpy(managed_or_array), array))


class AsTarget:
    """NumPy arrays of every kind, and tensors of torch, into the library."""

    target: ClassVar[str]
    shape: ClassVar[tuple[int, ...]] = (2, 3)  # one that the library takes

    @staticmethod
    def values(result: Any) -> np.ndarray:
        """The library's own reading of its object."""
        return np.asarray(result)

    @staticmethod
    def write(result: Any) -> None:
        """Writes into the library's object, or raises: nothing where it has no way to."""

    @pytest.fixture(autouse=True)
    def no_warning_of_ours(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own
            warnings.simplefilter("error", dlbridge.SilentCopyWarning)
            yield

    @pytest.mark.parametrize("policy", ["host", "zero_copy", "snapshot", "strict"])
    @pytest.mark.parametrize("kind", SOURCES)
    def test_the_plan_comes_true(self, kind: str, policy: str) -> None:
        source = SOURCES[kind]()
        before = source.tobytes()
        plan = dlbridge.explain(source, self.target, policy=policy)
        if plan.refused:
            with pytest.raises(dlbridge.ConversionRefused) as refused:
                dlbridge.to(source, self.target, policy=policy)
            assert refused.value.reasons
            return
        result = dlbridge.to(source, self.target, policy=policy)
        same_values(self.values(result), source)
        if policy in ("zero_copy", "strict"):
            assert plan.view
        if policy == "snapshot":
            assert not plan.view
        if source.size == 0:
            return
        if plan.view and source.flags.writeable and source.size == np.unique(source).size:
            source[...] = source + 1  # one memory
            same_values(self.values(result), source)
            return
        if not source.flags.writeable or not plan.view:
            with contextlib.suppress(*REFUSALS):
                self.write(result)
            assert source.tobytes() == before  # what it wrote went elsewhere, or nowhere

    @pytest.mark.parametrize("name", DTYPES)
    def test_every_type_arrives_or_is_refused(self, name: str) -> None:
        source = of_dtype(name, self.shape)
        library = _registry.library_named(self.target)
        assert library is not None
        takes = _registry.capabilities_of(library).dtypes
        if takes is not None and name not in takes:
            with pytest.raises(dlbridge.ConversionRefused) as refused:
                dlbridge.to(source, self.target)
            assert name in str(refused.value)
            return
        result = dlbridge.to(source, self.target)
        same_values(dlbridge.to_numpy(result), source)

    def test_a_torch_tensor_in_a_graph_is_not_written_to(self) -> None:
        torch = pytest.importorskip("torch")
        source = torch.ones(self.shape, requires_grad=True)
        plan = dlbridge.explain(source, self.target)
        if plan.refused:
            return
        result = dlbridge.to(source, self.target)
        with contextlib.suppress(*REFUSALS):
            self.write(result)
        assert source.detach().numpy().tolist() == np.ones(self.shape).tolist()

    def test_its_own_objects_stay_themselves(self) -> None:
        result = dlbridge.to(of_dtype("int32", self.shape), self.target)
        again = dlbridge.to(result, self.target)
        assert again is result
        copy = dlbridge.to(result, self.target, copy=True)
        assert copy is not result
        same_values(self.values(copy), self.values(result))

    def test_a_write_to_what_is_taken_as_constant_is_warned_of(self) -> None:
        library = _registry.library_named(self.target)
        assert library is not None
        constant = _registry.capabilities_of(library).takes_as_constant
        plan = dlbridge.explain(of_dtype("int32", self.shape), self.target)
        assert plan.refused or constant == any("takes memory as constant" in n for n in plan.notes)

    def test_explain_names_the_target(self) -> None:
        plan = dlbridge.explain(of_dtype("int32", self.shape), self.target)
        assert plan.result and not plan.refused


class AsSource:
    """Objects of the library into NumPy, torch and a managed tensor."""

    types: ClassVar[tuple[str, ...]] = ("int32", "float32")
    read_only: ClassVar[bool] = False  # nobody may write to its objects
    managed_reaches_the_host: ClassVar[bool] = True

    @staticmethod
    def make(array: np.ndarray) -> Any:
        """The library's own object with these values."""
        raise NotImplementedError

    @staticmethod
    def derived(x: Any) -> dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]]:
        """Views and the like that the library makes of its object, and NumPy's word for each."""
        return {}

    @pytest.fixture(autouse=True)
    def no_warnings_of_theirs(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def check(self, x: Any, expected: np.ndarray) -> None:
        array = dlbridge.to_numpy(x)
        same_values(array, expected)
        if self.managed_reaches_the_host:
            same_values(dlbridge.to_numpy(dlbridge.from_dlpack(x)), expected)
        if self.read_only:
            assert not array.flags.writeable or not dlbridge.explain(x, "numpy").view
        copied = dlbridge.to_numpy(x, copy=True)
        assert copied.flags.writeable
        if copied.size:
            copied[...] = 0
        same_values(dlbridge.to_numpy(x), expected)
        if expected.dtype.name in ("uint16", "uint32", "uint64"):
            return
        tensor = dlbridge.to_torch(x)
        assert tuple(tensor.shape) == expected.shape
        same_values(dlbridge.to_numpy(tensor), expected)
        if self.read_only and expected.size:
            tensor.zero_()
            same_values(dlbridge.to_numpy(x), expected)

    def test_every_type(self) -> None:
        for name in self.types:
            expected = of_dtype(name)
            self.check(self.make(expected), expected)

    def test_empty(self) -> None:
        expected = np.zeros((2, 0), "f4")
        self.check(self.make(expected), expected)

    def test_its_own_views(self) -> None:
        x = self.make(VALUES)
        for name, (view, expected) in self.derived(x).items():
            try:
                self.check(view, expected(VALUES))
            except Exception as error:
                raise AssertionError(f"view {name!r}") from error


def followed(
    x: Any, call: Callable[[Any], Any] = dlbridge.to_numpy, fixes: int = 2, **names: Any
) -> Any:
    """The list of the numbers that are made of it, by every fix on the way, of at most so many."""
    for _ in range(fixes + 1):
        try:
            return call(x).tolist()
        except dlbridge.ConversionRefused as refused:
            way = str(refused.fix).split(", or ")[-1].partition(" (")[0]
            x = eval(way, {**names, "x": x, "dlbridge": dlbridge})
    raise AssertionError("the fixes have no end")
