"""What torch's own tests of DLPack ask (its wheel has none) that no other file here does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlbridge
from dlbridge._torch import TAKES_VERSIONED

STEPS = [0, 3, 7]


@pytest.mark.parametrize("step", STEPS)
def test_the_stride_of_a_dimension_of_one_is_kept(step: int, road: str) -> None:
    source = torch.arange(16.0).as_strided((1, 4), (step, 1))
    managed = dlbridge.from_dlpack(source)
    assert managed.strides == (step, 1)
    assert dlbridge.to_torch(managed).stride() == (step, 1)
    assert dlbridge.to_torch(dlbridge.to_numpy(source)).stride() == (step, 1)


@pytest.mark.parametrize("make", [torch.tensor, torch.as_tensor, torch.asarray])
def test_torch_makes_tensors_of_managed_tensors(make: Callable[[Any], torch.Tensor]) -> None:
    if make is not torch.asarray and torch.__version__ < (2, 8):
        pytest.skip("2.4 and 2.5 take what NumPy would take by torch.asarray() alone")
    managed = dlbridge.from_dlpack(np.arange(10, dtype="f4"))
    made = make(managed)
    assert made.dtype is torch.float32
    assert made.tolist() == list(range(10))
    assert (made.data_ptr() == managed.data_ptr) == (make is not torch.tensor)


@pytest.mark.parametrize(
    ("max_version", "name"),
    [
        (None, "dltensor"),
        ((0, 8), "dltensor"),
        ((1, 0), "dltensor_versioned"),
        ((2, 0), "dltensor_versioned"),
    ],
)
def test_torch_takes_the_capsule_of_every_version_that_it_asks_for(
    max_version: tuple[int, int] | None, name: str
) -> None:
    managed = dlbridge.from_dlpack(np.arange(5.0))
    if name == "dltensor_versioned" and not TAKES_VERSIONED:
        pytest.skip("this torch takes legacy capsules only, and asks for them")
    capsule = managed.__dlpack__(max_version=max_version)
    assert f'"{name}"' in repr(capsule)
    assert torch.from_dlpack(capsule).tolist() == [0, 1, 2, 3, 4]
    assert f'"used_{name}"' in repr(capsule)


@pytest.mark.parametrize("stream", [object(), 1.0, "1"])
def test_a_stream_that_is_no_number_is_a_type_error(stream: object) -> None:
    with pytest.raises(TypeError, match="stream must be None or an int"):
        dlbridge.from_dlpack(np.arange(5.0)).__dlpack__(stream=stream)
