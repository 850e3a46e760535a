"""to_numpy(out=, async_=) and pinned_empty() on the host; tests of devices are elsewhere."""

from __future__ import annotations

import asyncio

import ml_dtypes
import numpy as np
import pytest
import torch

import dlbridge

pytestmark = pytest.mark.usefixtures("road")


def test_out_is_filled_and_returned() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    for out in (np.zeros((2, 3), "f4"), np.zeros((3, 4), "f4").T[::2]):
        assert dlbridge.to_numpy(x, out=out) is out
        assert out.tolist() == x.tolist()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 3)])
def test_out_may_be_empty(shape: tuple[int, ...]) -> None:
    out = np.zeros(shape, "f4")
    assert dlbridge.to_numpy(torch.ones(shape), out=out) is out


def test_out_takes_what_the_policy_resolves() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j], requires_grad=True)
    out = np.zeros(2, "c8")
    dlbridge.to_numpy(z.conj(), out=out)
    assert out.tolist() == [1 - 2j, 3 + 4j]
    half = np.zeros(2, "f2")
    dlbridge.to_numpy(torch.tensor([1.5, 2.5]), out=half, dtype="float16")
    assert half.tolist() == [1.5, 2.5]
    dense = np.zeros((2, 2), "f4")
    policy = dlbridge.host.replace(layout="densify")
    dlbridge.to_numpy(torch.eye(2).to_sparse(), out=dense, policy=policy)
    assert dense.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(z, out=out, policy="strict")


def wrong(name: str, x: torch.Tensor) -> np.ndarray:
    if name == "of shape":
        return np.zeros((3, 2), "f4")
    if name == "of dtype":
        return np.zeros((2, 3), "f8")
    if name == "read-only":
        array = np.zeros((2, 3), "f4")
        array.flags.writeable = False
        return array
    if name == "other byte order":
        return np.zeros((2, 3), ">f4")
    if name == "shares memory with the source":
        return x.numpy()
    # Of few bytes and many elements.
    return np.lib.stride_tricks.as_strided(np.zeros(3, "f4"), (2, 3), (0, 4))


@pytest.mark.parametrize(
    "name",
    [
        "of shape", "of dtype", "read-only", "other byte order", "shares memory with the source",
        "its elements share memory",
    ],
)  # fmt: skip
def test_an_out_that_does_not_fit_is_refused(name: str) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    out = wrong(name, x)
    before = out.copy()
    with pytest.raises(ValueError, match=name):
        dlbridge.to_numpy(x, out=out)
    assert np.array_equal(out, before)


def test_out_is_a_copy_and_an_array() -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match="copy=False"):
        dlbridge.to_numpy(x, out=np.zeros(3, "f4"), copy=False)
    with pytest.raises(TypeError, match=r"numpy\.ndarray, not list"):
        dlbridge.to_numpy(x, out=[0, 0, 0])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="tree"):
        dlbridge.to_numpy([x, x], out=np.zeros(3, "f4"))


def test_what_is_there_already_is_pending_for_nobody() -> None:
    x = torch.arange(4)
    pending = dlbridge.to_numpy(x, async_=True)
    assert isinstance(pending, dlbridge.PendingArray) and pending.done()
    assert np.shares_memory(pending.result(), x.numpy())
    assert repr(pending) == "<dlbridge.PendingArray, there>"

    async def twice() -> bool:
        return (await pending) is (await pending)

    assert asyncio.run(twice())
    tree = dlbridge.to_numpy({"a": x, "n": 3}, async_=True)
    assert tree["a"].result().tolist() == [0, 1, 2, 3] and tree["n"] == 3  # type: ignore[index]
    out = np.zeros(4, np.int64)
    assert dlbridge.to_numpy(x, async_=True, out=out).result() is out
    assert out.tolist() == [0, 1, 2, 3]


def test_streams_by_every_name_they_go_by() -> None:
    class Torch:
        cuda_stream = 7

    class CuPy:
        ptr = 7

    class CudaCore:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 7

    x = torch.ones(2)
    for stream in (None, 7, Torch(), CuPy(), CudaCore()):
        assert dlbridge.to_numpy(x, stream=stream).tolist() == [1, 1]
        assert dlbridge.to_torch(np.ones(2), stream=stream).tolist() == [1, 1]
    for wrong in ("default", True, 1.5, object()):
        with pytest.raises(TypeError, match="stream must be None"):
            dlbridge.to_numpy(x, stream=wrong)


def test_pinned_memory_is_ordinary_where_nothing_pins() -> None:
    array = dlbridge.pinned_empty((2, 3), "i4")
    assert array.shape == (2, 3) and array.dtype == np.int32 and array.flags.writeable
    assert dlbridge.pinned_empty(5).shape == (5,)
    assert dlbridge.pinned_empty(5, torch.bfloat16).dtype == ml_dtypes.bfloat16
    with dlbridge.no_copies(), dlbridge.policy("snapshot"):
        assert dlbridge.pinned_empty(5).shape == (5,)
    with pytest.raises(ValueError, match="sizes of 0 or more"):
        dlbridge.pinned_empty(-1)
    with pytest.raises(ValueError, match="device"):
        dlbridge.pinned_empty(3, device="nowhere")
