"""Paddle: it ignores byte_offset, drops read-only, and says that its device is (1, None)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

paddle = pytest.importorskip("paddle")


class TestAsTarget(AsTarget):
    target = "paddle"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return result.numpy()

    @staticmethod
    def write(result: Any) -> None:
        result.zero_()


class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint8", "float16", "float64", "complex128")
    make = staticmethod(paddle.to_tensor)

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.transpose([1, 0]), lambda a: a.T),
        }


def test_its_device_is_the_host() -> None:
    x = paddle.to_tensor(VALUES)
    assert x.__dlpack_device__()[1] in (None, 0)
    assert dlbridge.from_dlpack(x).device == (1, 0)
    assert not dlbridge.from_dlpack(x).readonly


def test_a_tensor_in_a_graph_gives_a_read_only_view() -> None:
    x = paddle.to_tensor(VALUES, stop_gradient=False)
    assert not dlbridge.to_numpy(x).flags.writeable
    with pytest.raises(dlbridge.ConversionRefused, match="requires grad") as refused:
        dlbridge.to_numpy(x, policy="strict")
    assert refused.value.fix is not None and "x.detach()" in refused.value.fix


def test_an_offset_is_applied() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(24.0)[6:]
    assert dlbridge.to(x, "paddle").numpy().tolist() == list(range(6, 24))


def test_the_same_memory_twice_loses_no_deleter() -> None:
    """Paddle itself calls one deleter of the two, and the wrong one."""
    source = VALUES.copy()
    first = dlbridge.to(source, "paddle")
    second = dlbridge.to(source, "paddle")
    third = dlbridge.to(source[:, :2], "paddle")
    part = first[1:]
    source[...] = source + 1
    del first
    np.testing.assert_array_equal(second.numpy(), source)
    np.testing.assert_array_equal(third.numpy(), source[:, :2])
    del second, third
    with pytest.warns(dlbridge.SilentCopyWarning):
        copy = dlbridge.to(source, "paddle")
    np.testing.assert_array_equal(copy.numpy(), source)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to(source, "paddle", copy=False)
    np.testing.assert_array_equal(part.numpy(), source[1:])


def test_the_same_memory_in_a_loop_stays_a_view() -> None:
    """The tensor that Paddle's own import gave is gone from the second turn on."""
    for columns in (3, 3, 3, 2, 3):
        source = VALUES[:, :columns]
        tensor = dlbridge.to(source, "paddle", copy=False)
        assert tensor.data_ptr() == VALUES.ctypes.data
        np.testing.assert_array_equal(tensor.numpy(), source)


def test_what_paddle_holds_is_read_no_further_than_it_holds_it() -> None:
    source = np.arange(1000, dtype="f4")
    part = dlbridge.to(source[:2], "paddle")
    with pytest.warns(dlbridge.SilentCopyWarning):
        whole = dlbridge.to(source, "paddle")
    np.testing.assert_array_equal(whole.numpy(), source)
    np.testing.assert_array_equal(part.numpy(), source[:2])


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="sparse"):
        dlbridge.to_numpy(paddle.sparse.sparse_coo_tensor([[0]], [1.0], [2]))
