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
