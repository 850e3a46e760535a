"""Packed float4 in its two spellings: single elements (JAX, ONNX Runtime), and torch's pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dlb_support import Producer, producer_f32, torch_bytes

import dlbridge

METAL = (8, 0)

pytestmark = [
    pytest.mark.usefixtures("road"),
    pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="torch is older"),
]


def single(**layout: Any) -> Any:
    return producer_f32(data=bytes(range(16)), dtype=(17, 4, 1), **layout)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 1, 2)])
def test_single_elements_in_c_order_become_pairs(shape: tuple[int, ...]) -> None:
    tensor = dlbridge.to_torch(single(shape=shape))
    assert tensor.dtype is torch.float4_e2m1fn_x2
    assert tuple(tensor.shape) == (*shape[:-1], shape[-1] // 2)
    assert torch_bytes(tensor) == bytes(range(tensor.numel()))


@pytest.mark.parametrize(
    "layout",
    [
        {"shape": (3,)},
        {"shape": ()},
        {"shape": (2, 4), "strides": (8, 1)},
        {"shape": (2, 4), "strides": (1, 2)},
        {"shape": (4,), "strides": (2,)},
    ],
    ids=["an odd number", "no dimension", "gaps between rows", "in columns", "every other one"],
)
def test_single_elements_that_are_no_rows_of_pairs_are_refused(layout: dict[str, Any]) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="float4"):
        dlbridge.to_torch(single(**layout))


class CopiesToHost(Producer):
    """Of memory on a device, which it copies to the host in the spelling that it has."""

    device = METAL

    def __dlpack__(self, *, dl_device: Any = None, **keywords: Any) -> Any:
        if dl_device is None:
            return super().__dlpack__(**keywords)
        return single(shape=(2, 4)).source.capsule(versioned=True)


def test_what_its_producer_copies_to_the_host_is_respelled_too() -> None:
    away = single(shape=(2, 4), kind=CopiesToHost, device=METAL)
    tensor = dlbridge.to_torch(away, device="cpu")
    assert tuple(tensor.shape) == (2, 2) and torch_bytes(tensor) == bytes(range(4))
