"""JAX: legacy capsules only, immutable arrays, 64-byte alignment or a silent copy, 32 bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from dlb_support import run_child
from library_tests import VALUES, AsSource, AsTarget, aligned

import dlbridge

jax = pytest.importorskip("jax")


class TestAsTarget(AsTarget):
    target = "jax"

    @staticmethod
    def values(result: Any) -> np.ndarray:
        return np.asarray(jax.numpy.copy(result))  # a jax.Array remembers what it gave NumPy


class TestAsSource(AsSource):
    types = ("bool", "int8", "int32", "uint32", "float16", "float32", "complex64", "bfloat16")
    read_only = True
    make = staticmethod(jax.numpy.asarray)

    @staticmethod
    def derived(x: Any) -> Any:
        return {
            "slice": (x[1:, 2:], lambda a: a[1:, 2:]),
            "transposed": (x.T, lambda a: a.T),
            "reversed": (x[::-1], lambda a: a[::-1]),
        }


def test_an_immutable_array_never_becomes_writable(road: str) -> None:
    source = jax.numpy.arange(6.0)
    array = dlbridge.to_numpy(source)
    assert array.tolist() == [0, 1, 2, 3, 4, 5] and not array.flags.writeable
    dlbridge.to_torch(source).fill_(9)
    assert source.tolist() == [0, 1, 2, 3, 4, 5]
    assert dlbridge.from_dlpack(source).readonly
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(source, policy="strict")


def test_a_managed_tensor_is_taken_by_jax() -> None:
    tensor = dlbridge.from_dlpack(np.arange(6, dtype="f4"))
    assert jax.dlpack.from_dlpack(tensor).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_copy_that_was_asked_for_is_one() -> None:
    source = aligned(VALUES)
    result = dlbridge.to(source, "jax", copy=True)
    source[...] = 0
    np.testing.assert_array_equal(result, VALUES)
    plan = dlbridge.explain(source, "jax", copy=True)
    assert any("copy=True" in note for note in plan.notes)


def test_64_bits_are_kept_or_refused() -> None:
    source = aligned(VALUES.astype("f8"))
    assert not jax.config.jax_enable_x64
    with pytest.raises(dlbridge.ConversionRefused, match="float64") as refused:
        dlbridge.to(source, "jax")
    assert refused.value.fix is not None and "float32" in refused.value.fix
    assert dlbridge.to(source, "jax", dtype="float32").dtype == np.float32
    jax.config.update("jax_enable_x64", True)
    try:
        assert dlbridge.to(source, "jax").dtype == np.float64
    finally:
        jax.config.update("jax_enable_x64", False)


def test_its_packed_float4_is_the_pair_of_torch() -> None:
    torch = pytest.importorskip("torch")
    values = [0.5, 1, 1.5, 2, 3, 4, 6, -6]
    x = jax.numpy.asarray(np.array(values, ml_dtypes.float4_e2m1fn))
    tensor = dlbridge.to_torch(x)
    assert tensor.dtype == torch.float4_e2m1fn_x2 and tensor.shape == (4,)
    packed = x.view(ml_dtypes.float4_e2m1fn)
    low = np.array(packed).view("u1") & 15
    expected = [int(low[i]) | int(low[i + 1]) << 4 for i in range(0, 8, 2)]
    assert tensor.view(torch.uint8).tolist() == expected
    odd = jax.numpy.asarray(np.array(values[:3], ml_dtypes.float4_e2m1fn))
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(odd)


def test_a_silent_copy_is_told_of_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if jax began to want more than 64 bytes."""
    from dlbridge import _registry

    library = _registry.library_named("jax")
    assert library is not None
    _registry.function_of(library.take)
    row = dlbridge.Library(
        name="jax_that_copies",
        capabilities=dlbridge.Capabilities(dtypes=("float32",), strides="compact"),
        take="jax.dlpack:from_dlpack",
        address=library.address,
    )
    dlbridge.register(row)
    source = aligned(VALUES, offset=4)
    with pytest.warns(dlbridge.SilentCopyWarning, match="jax_that_copies"):
        dlbridge.to(source, "jax_that_copies")
    with pytest.raises(dlbridge.ConversionRefused, match="without a word"):
        dlbridge.to(source, "jax_that_copies", copy=False)


SHARDED = """
import jax, numpy as np, dlbridge
from jax.sharding import Mesh, NamedSharding, PartitionSpec
where = NamedSharding(Mesh(np.array(jax.devices()), ("d",)), PartitionSpec("d"))
x = jax.device_put(jax.numpy.arange(8.0), where)
assert dlbridge.to(x, "jax") is x and dlbridge.to([x], "jax", policy="strict")[0] is x
assert dlbridge.explain(x, "jax").view and not dlbridge.explain(x, "jax").writable
assert dlbridge.accepts("jax")(jax.numpy.sin)(x).shape == (8,)
for call in (dlbridge.to_numpy, dlbridge.to_torch, dlbridge.from_dlpack):
    try:
        call(x)
    except dlbridge.ConversionRefused as refused:
        assert refused.fix == "np.asarray(x)" and type(refused.__cause__) is BufferError
        assert "on 4 devices" in str(refused)
assert dlbridge.explain(x, "numpy").fix == "np.asarray(x)"
assert dlbridge.to_numpy(np.asarray(x)).tolist() == list(range(8))
print("done")
"""


def test_an_array_on_several_devices_is_jaxs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert run_child(SHARDED) == "done\n"


def test_what_jax_refuses_to_export_is_told_with_its_fix() -> None:
    x = jax.numpy.arange(3, dtype="int4")
    assert dlbridge.to(x, "jax") is x
    with pytest.raises(dlbridge.ConversionRefused) as refused:
        dlbridge.to_numpy(x)
    assert dlbridge.to_numpy(eval(str(refused.value.fix))).tolist() == [0, 1, 2]
    x = jax.numpy.ones(3)
    x.delete()
    with pytest.raises(dlbridge.ConversionRefused, match="it was deleted") as refused:
        dlbridge.to_numpy(x)
    assert refused.value.fix is None and dlbridge.explain(x, "numpy").refused


def test_a_traced_array_stays_itself() -> None:
    made = jax.jit(dlbridge.accepts("jax")(jax.numpy.sin))(jax.numpy.ones(2))
    assert made.shape == (2,)


def test_answers_become_jax_whatever_their_library_calls_its_types() -> None:
    class Series:
        dtype = "Int64"

        def __init__(self, array: np.ndarray) -> None:
            self.__dlpack__ = array.__dlpack__
            self.__dlpack_device__ = array.__dlpack_device__

    like = dlbridge.returns_like(jax.numpy.ones(3))
    for answer in (np.arange(3), Series(np.arange(3))):
        assert like(answer).dtype == jax.numpy.int32
