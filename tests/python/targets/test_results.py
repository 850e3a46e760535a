"""Results of C++ functions leave in the library that their type names, or that of an argument."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import settle
from guarded_sources import TYPE, VALUES, Plain

import dlbridge


@pytest.fixture(params=["nanobind", "pybind11"])
def casters(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"dlbridge_{request.param}_casters")


def test_a_result_is_of_the_library_that_its_type_names(casters: Any, road: str) -> None:
    result = casters.counted_in_torch()
    assert type(result) is torch.Tensor
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="nowhere"):
        casters.counted_nowhere()
    assert "dlbridge.In[torch]" in casters.counted_in_torch.__doc__


def test_a_result_is_of_the_library_of_an_argument(casters: Any, road: str) -> None:
    array = np.ones((2, 2), "f4")
    for source, kind in (
        (array, np.ndarray),
        (torch.from_numpy(array), torch.Tensor),
        (memoryview(array), dlbridge.ManagedTensor),
    ):
        result = casters.like(source)
        assert type(result) is kind
        assert dlbridge.to_numpy(result).tolist() == [1, 2, 3]


def test_a_result_that_shares_its_arguments_memory_keeps_it(casters: Any, road: str) -> None:
    array = np.arange(3)
    result = casters.like_any(torch.from_numpy(array))
    assert result.data_ptr() == array.ctypes.data
    references = sys.getrefcount(array)
    del result
    settle()
    assert sys.getrefcount(array) == references - 1 == 2


def test_a_view_takes_any_rank(casters: Any) -> None:
    for shape in ((), (3,), (2, 3), (2, 0, 3), (2, 3, 4, 5)):
        array = np.arange(np.prod(shape), dtype="f8").reshape(shape).T
        assert casters.sum_of_any(array) == array.sum()
    assert "dlbridge.TensorView[float64, any rank]" in casters.sum_of_any.__doc__


def test_a_device_view_takes_no_memory_of_the_host(casters: Any) -> None:
    assert casters.where(np.ones(3, "f4")) == "host"
    with pytest.raises(TypeError, match="DeviceView"):
        casters.stream_of(np.ones(3, "f4"))


@pytest.mark.usefixtures("guarded_device")
def test_a_device_view_is_on_the_stream_that_its_producer_was_told(casters: Any) -> None:
    producer = Plain(VALUES[0])
    assert casters.where(producer) == "device"
    stream = casters.stream_of(producer)
    assert stream and {call["stream"] for call in producer.calls} == {stream}


@pytest.mark.usefixtures("guarded_device")
def test_a_parameter_on_a_device_has_what_lies_elsewhere_brought_there(casters: Any) -> None:
    assert casters.type_of_device(Plain(VALUES[0])) == TYPE
    assert casters.type_of_device(VALUES[0]) == TYPE
    assert casters.type_of_device(torch.ones(3, requires_grad=True)) == TYPE
    with pytest.raises(dlbridge.ConversionRefused), dlbridge.no_copies():
        casters.type_of_device(VALUES[0])
