"""dpnp: memory of a SYCL device, here oneAPI on the processor; a real second device without a GPU.

`OCL_ICD_FILENAMES=<venv>/lib/libintelocl.so` lets it find one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from library_tests import VALUES, AsSource, AsTarget

import dlbridge

dpnp = pytest.importorskip("dpnp")
dpctl = pytest.importorskip("dpctl")


def test_without_a_device_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpctl, "get_devices", list)
    with pytest.raises(dlbridge.ConversionRefused, match="oneapi"):
        dlbridge.to(VALUES, "dpnp")
    plan = dlbridge.explain(VALUES, "dpnp")
    assert plan.refused and any("no SYCL device" in note for note in plan.notes)


needs_device = pytest.mark.skipif(not dpctl.get_devices(), reason="dpctl finds no device")


@needs_device
class TestAsTarget(AsTarget):
    target = "dpnp"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        assert isinstance(result, dpnp.ndarray)
        return result.asnumpy()


@needs_device
class TestAsSource(AsSource):
    types = ("bool", "int8", "int64", "uint32", "float32", "complex64")
    make = staticmethod(dpnp.asarray)
    managed_reaches_the_host = False

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.T, lambda a: a.T),
            "reversed": (x[::-1], lambda a: a[::-1]),
        }


@needs_device
def test_its_memory_stays_on_its_device() -> None:
    x = dpnp.asarray(VALUES)[1:]
    managed = dlbridge.from_dlpack(x)
    assert managed.device == (14, 0)
    assert dlbridge.to(managed, "dpnp").asnumpy().tolist() == VALUES[1:].tolist()
    for policy in ("strict", "zero_copy"):
        with pytest.raises(dlbridge.ConversionRefused, match="oneapi"):
            dlbridge.to_numpy(x, policy=policy)


@needs_device
def test_it_goes_to_other_libraries_by_way_of_the_host() -> None:
    x = dpnp.asarray(VALUES)[1:, ::2]
    for target in ("torch", "jax", "paddle", "warp"):
        pytest.importorskip(target)
        found = dlbridge.to_numpy(dlbridge.to(x, target))
        assert found.tolist() == VALUES[1:, ::2].tolist(), target


# --- end to end by the producer's rung: nobody here has a runtime for oneAPI ----------------------

RUNG = "its own library is asked to copy it to cpu"


@needs_device
@pytest.mark.parametrize("kind", ["device", "shared", "host"])
def test_every_kind_of_its_memory_goes_by_the_producers_rung(kind: str) -> None:
    x = dpnp.asarray(VALUES, usm_type=kind)
    for target in ("numpy", "torch"):
        plan = dlbridge.explain(x, target)
        assert plan.steps[0] == "copy to host" and not plan.view
        assert plan.bytes_copied == VALUES.nbytes
        assert RUNG in plan.notes
    array = dlbridge.to_numpy(x)
    assert array.tolist() == VALUES.tolist()
    array += 1
    assert x.asnumpy().tolist() == VALUES.tolist()
    assert dlbridge.to_torch(x).tolist() == VALUES.tolist()


@needs_device
@pytest.mark.parametrize("order", [None, "in_order"])
def test_work_on_its_queue_is_waited_for(order: str | None) -> None:
    queue = dpctl.SyclQueue() if order is None else dpctl.SyclQueue(property=order)
    x = dpnp.zeros(1 << 18, dtype="f4", sycl_queue=queue)
    for _ in range(30):
        x += 1
    array = dlbridge.to_numpy(x)
    assert (array == 30).all()
    x += 1
    assert (array == 30).all()
    assert (np.asarray(dlbridge.to_torch(x)) == 31).all()


@needs_device
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[1:],
        lambda a: a[1:, 1::2],
        lambda a: a[::-1],
        lambda a: a.T[1:],
        lambda a: a[2:, 3:],
        lambda a: a[1:1],
        lambda a: a[1, 2],
    ],
    ids=["offset", "strided", "reversed", "transposed", "corner", "empty", "number"],
)
def test_offsets_and_strides(view: Any) -> None:
    x = view(dpnp.asarray(VALUES))
    assert dlbridge.to_numpy(x).tolist() == view(VALUES).tolist()
    assert dlbridge.to_torch(x).tolist() == view(VALUES).tolist()
    managed = dlbridge.from_dlpack(x)
    assert managed.device == (14, 0) and managed.shape == view(VALUES).shape


@needs_device
def test_read_only_memory_stays_so_on_its_device_and_is_copied_off_it() -> None:
    x = dpnp.asarray(VALUES)
    x.flags.writable = False
    assert dlbridge.from_dlpack(x).readonly
    array = dlbridge.to_numpy(x)
    assert array.tolist() == VALUES.tolist()
    assert array.flags.writeable  # a copy is nobody else's
    tensor = dlbridge.to_torch(x)
    tensor += 1
    assert x.asnumpy().tolist() == VALUES.tolist()


@needs_device
def test_out_and_async_go_by_the_producers_rung_too() -> None:
    x = dpnp.asarray(VALUES)[1:, ::2]
    out = np.zeros(x.shape, x.dtype)
    assert dlbridge.to_numpy(x, out=out) is out
    assert out.tolist() == VALUES[1:, ::2].tolist()
    assert dlbridge.to_numpy(x, async_=True).result().tolist() == VALUES[1:, ::2].tolist()


@needs_device
def test_what_has_left_it_as_a_managed_tensor_is_refused_with_what_was_tried() -> None:
    managed = dlbridge.from_dlpack(dpnp.asarray(VALUES))
    with pytest.raises(dlbridge.ConversionRefused, match="no runtime for oneapi"):
        dlbridge.to_numpy(managed)


@needs_device
def test_negative_strides_are_packed_before_dpnp_sees_them() -> None:
    assert "repack" in dlbridge.explain(VALUES[::-1], "dpnp").steps
    assert dlbridge.to(VALUES[::-1], "dpnp").asnumpy().tolist() == VALUES[::-1].tolist()
