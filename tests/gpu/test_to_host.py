"""From a GPU to NumPy: the policy's row, every layout and type, and how it is told."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from gpu_support import same

import dlbridge

pytestmark = pytest.mark.usefixtures("road")


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.arange(count, device="cuda").reshape(shape).to(dtype)


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.mT,
    "permuted": lambda x: x.permute(2, 0, 1),
    "columns": lambda x: x[..., 3:40],
    "steps": lambda x: x[:, ::3, ::2],
    "expanded": lambda x: x[:1].expand(5, -1, -1),
    "one": lambda x: x[1, 2, 3],
    "empty": lambda x: x[:0],
    "offset": lambda x: x.flatten()[7:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [5, 300])
def test_every_layout_arrives_as_torch_itself_would_bring_it(layout: str, size: int) -> None:
    x = LAYOUTS[layout](numbers(size, 37, 411))
    array = dlbridge.to_numpy(x)
    assert same(array, x)
    assert array.flags.writeable and array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
        torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bfloat16,
    ],
    ids=str,
)  # fmt: skip
def test_every_type_arrives_bit_by_bit(dtype: torch.dtype) -> None:
    x = torch.randint(0, 100, (33, 65), device="cuda").to(dtype)
    assert same(dlbridge.to_numpy(x), x)
    assert same(dlbridge.to_numpy(x.T), x.T)


def test_conjugates_and_negatives_are_resolved_on_the_device() -> None:
    z = torch.randn(100, 30, dtype=torch.complex64, device="cuda")
    assert same(dlbridge.to_numpy(z.conj()), z.conj())
    assert same(dlbridge.to_numpy(z.mH), z.mH)
    assert same(dlbridge.to_numpy(z.conj().imag), z.conj().imag)


def test_a_cast_is_done_before_the_bus() -> None:
    x = torch.randn(1000, 77, dtype=torch.float64, device="cuda")
    plan = dlbridge.explain(x, "numpy", dtype="float32")
    assert plan.bytes_copied == x.numel() * 4
    assert same(dlbridge.to_numpy(x, dtype="float32"), x.float())
    assert same(dlbridge.to_numpy(x.T, dtype="float32"), x.T.float())


def test_a_tensor_in_a_graph_is_detached() -> None:
    x = torch.randn(10, device="cuda", requires_grad=True)
    assert same(dlbridge.to_numpy(x * 2), x * 2)


def test_the_plan_names_the_rung() -> None:
    plan = dlbridge.explain(numbers(2, 3), "numpy")
    assert plan.steps == ("copy to host",)
    assert plan.notes == ("dlbridge copies it by CUDA",)
    assert not plan.view and plan.writable


@pytest.mark.parametrize("policy", ["strict", "zero_copy"])
def test_a_gpu_is_left_only_where_the_policy_says_so(policy: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="on cuda:0"):
        dlbridge.to_numpy(numbers(2, 3), policy=policy)


@pytest.mark.parametrize("count", [0, 1, 2**19 - 1, 2**19, 2**19 + 1, 2**20, 5 * 2**20 + 3])
def test_sizes_around_the_staging_buffers_borders(count: int) -> None:
    x = torch.randint(0, 2**31 - 1, (count,), dtype=torch.int32, device="cuda")
    assert same(dlbridge.to_numpy(x), x)
    assert same(dlbridge.to_numpy(x.flip(0)[::2]), x.flip(0)[::2])


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("layout", ["plain", "transposed", "columns", "steps"])
def test_out_is_filled_and_returned(layout: str, pinned: bool) -> None:
    x = LAYOUTS[layout](numbers(20, 100, 411))
    shape = tuple(x.shape)
    out = dlbridge.pinned_empty(shape) if pinned else np.empty(shape, np.float32)
    out[...] = -1
    assert dlbridge.to_numpy(x, out=out) is out
    assert same(out, x)


def test_out_may_be_strided() -> None:
    x = numbers(300, 40, 50)
    out = np.full((50, 300, 80), -1, np.float32).transpose(1, 2, 0)[:, ::2]
    assert dlbridge.to_numpy(x, out=out) is out
    assert same(out, x)


def test_out_must_fit() -> None:
    x = numbers(2, 3)
    with pytest.raises(ValueError, match="shape"):
        dlbridge.to_numpy(x, out=np.empty((3, 2), np.float32))
    with pytest.raises(ValueError, match="dtype"):
        dlbridge.to_numpy(x, out=np.empty((2, 3), np.float64))


@pytest.mark.parametrize("layout", ["plain", "transposed", "columns", "steps"])
def test_async_is_awaited(layout: str) -> None:
    x = LAYOUTS[layout](numbers(20, 100, 411))

    async def fetch() -> np.ndarray:
        return await dlbridge.to_numpy(x, async_=True)

    assert same(asyncio.run(fetch()), x)


def test_several_at_once_are_gathered() -> None:
    tensors = [torch.randn(1000, 100 + i, device="cuda") for i in range(8)]

    async def fetch() -> list[np.ndarray]:
        return await asyncio.gather(*(dlbridge.to_numpy(x, async_=True) for x in tensors))

    for array, x in zip(asyncio.run(fetch()), tensors, strict=True):
        assert same(array, x)


def test_large_tensors() -> None:
    x = torch.randint(0, 255, (3 * 2**28 + 5,), dtype=torch.uint8, device="cuda")
    assert bool(torch.equal(torch.from_numpy(dlbridge.to_numpy(x)), x.cpu()))
