"""tvm_ffi: takes exchange tables first, loses read-only, knows every type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

tvm_ffi = pytest.importorskip("tvm_ffi")


class TestAsTarget(AsTarget):
    target = "tvm_ffi"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return np.from_dlpack(result)

    @staticmethod
    def write(result: Any) -> None:
        import torch

        torch.from_dlpack(result).zero_()


class TestAsSource(AsSource):
    types = ("int32", "float32", "float64", "bool")

    @staticmethod
    def make(array: np.ndarray) -> Any:
        return tvm_ffi.from_dlpack(np.array(array))


def test_graph_and_bits_of_torch_do_not_pass() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([1 + 2j]).conj().imag  # a pending minus sign
    assert np.from_dlpack(dlbridge.to(x, "tvm_ffi")).tolist() == [-2]
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to(x, "tvm_ffi", copy=False)


def test_read_only_memory_is_copied() -> None:
    source = VALUES.copy()
    source.flags.writeable = False
    assert dlbridge.explain(source, "tvm_ffi").bytes_copied == source.nbytes
