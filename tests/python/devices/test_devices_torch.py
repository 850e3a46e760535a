"""torch.Tensors on a device that is not the host, on both roads, without a GPU.

torch's backend PrivateUse1 is the guarded device: its memory faults when the host touches it, and
its work comes late.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Any

import dlbridge_guarded as guarded
import numpy as np
import pytest
from guarded_sources import (
    CHUNK,
    NAME,
    TYPE,
    VALUES,
    Later,
    Plain,
    by_table,
    registered,
    same,
    settle,
    torch_backend,
    while_held,
    without_waiting,
)

import dlbridge

pytest.importorskip("dlbridge_guarded_torch")
torch = torch_backend()
DEVICE = torch.device("guarded:0")


@pytest.fixture(autouse=True)
def _device(road: str) -> Iterator[str]:
    with registered():
        try:
            yield road
        finally:
            torch.guarded.set_current_stream(0)


def there(values: np.ndarray, device: Any = DEVICE) -> Any:
    return torch.from_numpy(values.copy()).to(device)


def late(values: np.ndarray, stream: int) -> Any:
    """A tensor whose values are written by work on `stream`, which is held."""
    x = there(np.full_like(values, 77))
    guarded.hold(stream)
    torch.guarded.set_current_stream(stream)
    x.copy_(torch.from_numpy(values.copy()), non_blocking=True)
    return x


# --- the backend itself --------------------------------------------------------------------------


def test_the_backend_computes_on_memory_that_the_host_cannot_touch() -> None:
    x = there(VALUES)
    assert x.device == DEVICE and guarded.locate(x.data_ptr()) == (TYPE, 0)
    assert torch.equal((x + 1).cpu(), torch.from_numpy(VALUES + 1))
    assert x.t()[1:].cpu().tolist() == VALUES.T[1:].tolist()


# --- to NumPy ------------------------------------------------------------------------------------


def test_it_is_copied_by_the_runtime() -> None:
    x = there(VALUES)
    plan = dlbridge.explain(x, "numpy")
    assert plan.steps[0] == "copy to host"
    assert any("dlbridge copies it by guarded" in note for note in plan.notes)
    guarded.begin_count()
    same(dlbridge.to_numpy(x), VALUES)
    counts = guarded.counts()
    assert (counts["to_host"], counts["kernels"]) == (VALUES.nbytes, 0)


@pytest.mark.parametrize("policy", ["strict", "zero_copy"])
def test_where_copies_are_forbidden_it_is_refused(policy: str) -> None:
    x = there(VALUES)
    guarded.begin_count()
    with pytest.raises(dlbridge.ConversionRefused, match=NAME):
        dlbridge.to_numpy(x, policy=policy)
    assert guarded.counts()["to_host"] == 0


def test_without_a_runtime_torch_is_asked() -> None:
    x = there(VALUES)
    dlbridge._core.register_device_runtime(TYPE, None)
    plan = dlbridge.explain(x, "numpy")
    assert any("its own library is asked" in note for note in plan.notes)
    same(dlbridge.to_numpy(x), VALUES)


def test_the_work_on_torchs_current_stream_is_waited_for(_device: str) -> None:
    # torch's table, which the portable road asks, does not tell this backend's streams.
    stream = 0 if _device == "portable" else guarded.make_stream()
    x = late(VALUES, stream)
    same(while_held(lambda: dlbridge.to_numpy(x), stream), VALUES)


def test_the_callers_stream_is_waited_for() -> None:
    stream = guarded.make_stream()
    x = late(VALUES, stream)
    torch.guarded.set_current_stream(0)
    same(while_held(lambda: dlbridge.to_numpy(x, stream=stream), stream), VALUES)


LAYOUTS = {
    "transposed": lambda x: x.t() if isinstance(x, torch.Tensor) else x.T,
    "every other": lambda x: x[:, ::2],
    "offset": lambda x: x[1:, 1:],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_only_the_targets_bytes_cross(name: str) -> None:
    view = LAYOUTS[name]
    x = view(there(VALUES))
    guarded.begin_count()
    expected = np.ascontiguousarray(view(VALUES))
    same(dlbridge.to_numpy(x), expected)
    assert guarded.counts()["to_host"] == expected.nbytes


def test_conjugate_and_negative_bits_are_resolved_on_the_device() -> None:
    values = np.array([1 + 2j, 3 - 4j], "c8")
    x = there(values)
    guarded.begin_count()
    same(dlbridge.to_numpy(x.conj()), values.conj())
    assert guarded.counts()["to_host"] == values.nbytes
    y = there(VALUES)
    guarded.begin_count()
    same(dlbridge.to_numpy(torch._neg_view(y)), -VALUES)
    assert guarded.counts()["to_host"] == VALUES.nbytes


def test_a_cast_that_has_to_be_checked_is_done_by_the_host() -> None:
    x = there(VALUES)
    guarded.begin_count()
    same(dlbridge.to_numpy(x, dtype="int8"), VALUES.astype("i1"))
    assert guarded.counts()["to_host"] == 48


def test_a_tensor_in_a_graph_is_copied_detached() -> None:
    x = there(VALUES).requires_grad_()
    array = dlbridge.to_numpy(x)
    same(array, VALUES)
    assert array.flags.writeable and x.requires_grad
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x, policy="strict")


def test_a_bfloat16_tensor_keeps_its_type() -> None:
    x = there(VALUES).to(torch.bfloat16)
    assert dlbridge.to_numpy(x).astype("f4").tolist() == VALUES.tolist()


def test_async_and_out() -> None:
    x = there(VALUES)
    out = np.zeros((3, 4), "f4")
    assert dlbridge.to_numpy(x, out=out) is out
    same(out, VALUES)
    pending = dlbridge.to_numpy(x, async_=True)
    del x
    gc.collect()
    same(pending.result(), VALUES)


def test_several_in_a_tree_are_under_way_before_the_first_is_waited_for(_device: str) -> None:
    stream = 0 if _device == "portable" else guarded.make_stream()
    first = there(VALUES)
    second = late(VALUES + 1, stream)
    tree = {"a": first, "b": [second, "text"], "c": first}

    def crossed() -> int:
        views, copies, _ = dlbridge.stats().by_target["numpy"]
        return views + copies

    before = crossed()
    later = Later(lambda: dlbridge.as_namespace("numpy", tree)[1][0])
    deadline = time.monotonic() + 20
    while crossed() - before < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    begun, waiting = crossed() - before, not later.ended
    guarded.let_go(stream)
    result = later.result()
    assert (begun, waiting) == (2, True)
    same(result["a"], VALUES)
    same(result["b"][0], VALUES + 1)
    assert result["c"] is result["a"] and result["b"][1] == "text"


def test_the_second_device() -> None:
    x = there(VALUES, torch.device("guarded:1"))
    same(dlbridge.to_numpy(x), VALUES)
    assert dlbridge.from_dlpack(x).device == (TYPE, 1)


# --- to torch ------------------------------------------------------------------------------------


def test_from_the_host_into_memory_of_torchs_own() -> None:
    x = dlbridge.to_torch(VALUES, device=NAME)
    assert x.device == DEVICE
    same(dlbridge.to_numpy(x), VALUES)
    assert guarded.counts()["pageable_copies"] == 0
    x += 1
    same(dlbridge.to_numpy(x), VALUES + 1)


def test_strided_and_cast_from_the_host_cross_once() -> None:
    x = dlbridge.to_torch(VALUES.T, device=f"{NAME}:1", dtype="int16")
    assert x.device == torch.device("guarded:1") and x.dtype is torch.int16
    same(dlbridge.to_numpy(x), np.ascontiguousarray(VALUES.T).astype("i2"))
    assert guarded.counts()["to_device"] == 24


def test_a_sparse_tensor_is_made_dense_on_its_way() -> None:
    sparse = torch.from_numpy(VALUES.copy()).to_sparse()
    there = dlbridge.to_torch(sparse, device=NAME, policy=dlbridge.host.replace(layout="densify"))
    assert there.device == DEVICE and there.layout is torch.strided
    same(dlbridge.to_numpy(there), VALUES)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_every_size_around_the_staging_buffers(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 255, size, "u1")
    guarded.delay(size, 2000)
    x = dlbridge.to_torch(values.copy(), device=NAME)
    same(dlbridge.to_numpy(x), values)


def test_a_producers_tensor_stays_on_the_device_and_is_shared() -> None:
    x = Plain(VALUES)
    tensor = dlbridge.to_torch(x)
    assert tensor.device == DEVICE and tensor.data_ptr() == x.memory.address
    tensor.fill_(5)
    guarded.wait_for()
    assert x.memory.load() == np.full_like(VALUES, 5).tobytes()
    del tensor
    gc.collect()
    guarded.settle()
    settle()
    assert x.deletes == x.exports


@pytest.mark.parametrize("make", [Plain, by_table])
def test_torchs_work_waits_for_the_producers(make: Any) -> None:
    stream = guarded.make_stream()
    guarded.hold(stream)
    x = make(VALUES, stream=stream, late=True)
    tensor = without_waiting(lambda: dlbridge.to_torch(x), stream)
    copied = torch.empty_like(tensor)
    copied.copy_(tensor, non_blocking=True)
    guarded.let_go(stream)
    same(copied.cpu().numpy(), VALUES)


@pytest.mark.parametrize("make", [Plain, by_table])
def test_memory_is_not_given_back_before_torchs_stream_is_done_with_it(make: Any) -> None:
    x = make(VALUES, stream=guarded.make_stream())
    tensor = dlbridge.to_torch(x)
    copied = torch.empty_like(tensor)
    guarded.hold()
    copied.copy_(tensor, non_blocking=True)
    del tensor
    gc.collect()
    settle()
    assert x.deletes < x.exports
    guarded.let_go()
    guarded.wait_for()
    guarded.settle()
    settle()
    assert x.deletes == x.exports
    same(copied.cpu().numpy(), VALUES)


def test_memory_goes_back_after_torchs_stream_whoever_works_on_it() -> None:
    x = Plain(VALUES)
    tensor = dlbridge.to_torch(x)
    read = guarded.DeviceMemory(bytes(VALUES.nbytes))
    guarded.hold()
    read.copy_later(tensor.data_ptr(), 0)  # torch knows nothing of it, and holds nothing for it
    del tensor
    gc.collect()
    settle()
    assert x.deletes < x.exports
    guarded.let_go()
    guarded.settle()
    settle()
    assert x.deletes == x.exports
    assert read.load() == VALUES.tobytes()


def test_a_managed_copy_is_ordered_before_torchs_work() -> None:
    x = Plain(VALUES)
    managed = dlbridge.from_dlpack(x, copy=True)
    tensor = dlbridge.to_torch(managed)
    same(tensor.cpu().numpy(), VALUES)
    del managed


def test_copy_on_the_device_never_crosses() -> None:
    x = there(VALUES)
    guarded.begin_count()
    copy = dlbridge.to_torch(x, copy=True)
    assert copy.data_ptr() != x.data_ptr()
    counts = guarded.counts()
    assert (counts["to_host"], counts["to_device"]) == (0, 0)
    same(copy.cpu().numpy(), VALUES)


def test_to_the_host() -> None:
    x = there(VALUES)
    tensor = dlbridge.to_torch(x, device="cpu")
    assert tensor.device.type == "cpu"
    same(tensor.numpy(), VALUES)


def test_it_stays_itself() -> None:
    x = there(VALUES)
    assert dlbridge.to_torch(x) is x
    assert dlbridge.to_torch(x, device=NAME) is x


def test_every_call_may_fail() -> None:
    x = there(VALUES)
    ways = {
        "to_numpy": lambda: dlbridge.to_numpy(x),
        "to_torch": lambda: dlbridge.to_torch(VALUES, device=NAME),
        "shared": lambda: dlbridge.to_torch(by_table(VALUES)),
    }
    for name, way in ways.items():
        for nth in range(1, 100):
            dlbridge._core.release_pinned_memory()
            before = guarded.counts()
            guarded.fail(nth=nth)
            with contextlib.suppress(Exception):
                way()
            failed = guarded.has_failed()
            guarded.settle()
            settle()
            guarded.settle()
            dlbridge._core.release_pinned_memory()
            after = guarded.counts()
            for what in ("allocations", "pinned", "events"):
                assert after[what] == before[what], f"{name}, call {nth}: {what}"
            assert guarded.faults() == [], f"{name}, call {nth}"
            if not failed:
                break
        else:
            raise AssertionError("it never ended")
