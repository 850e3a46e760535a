"""dumps, loads and Pickler: the memory beside the pickle, the policy, and nothing global."""

from __future__ import annotations

import copy
import copyreg
import io
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import address, make_f32, run_child, settle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import dlbridge


def sizes(buffers: list[pickle.PickleBuffer]) -> list[int]:
    return [memoryview(buffer).nbytes for buffer in buffers]


def copied(buffers: list[pickle.PickleBuffer]) -> list[bytes]:
    """As they are in another process, where nobody may write to what was received."""
    return [bytes(buffer) for buffer in buffers]


def there_and_back(x: Any, **how: Any) -> Any:
    data, buffers = dlbridge.dumps(x)
    return dlbridge.loads(data, copied(buffers), **how)


# What is sent, and how many bytes of memory go along.
TENSORS: dict[str, tuple[torch.Tensor, int]] = {
    "plain": (torch.arange(6.0).reshape(2, 3), 24),
    "transposed": (torch.arange(6.0).reshape(2, 3).T, 24),
    "a part": (torch.arange(1000.0)[3:7], 16),
    "with gaps": (torch.arange(1000.0)[::100], 40),
    "expanded": (torch.arange(2.0).reshape(2, 1).expand(2, 1000), 8),
    "overlapping": (torch.arange(6.0).as_strided((4, 3), (1, 1)), 24),
    "channels last": (torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), 480),
    "one number": (torch.tensor(3), 8),
    "empty": (torch.empty(0, 3), 0),
    "bool": (torch.tensor([True, False]), 2),
    "bfloat16": (torch.arange(3).bfloat16(), 6),
    "float8": (torch.arange(3).to(torch.float8_e4m3fn), 3),
    "conj": (torch.tensor([1 + 2j, 3 - 1j]).conj(), 16),
    "neg": (torch.tensor([1 + 2j, 3 - 1j]).conj().imag, 8),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_arrives_as_it_was(name: str, road: str) -> None:
    tensor, size = TENSORS[name]
    data, buffers = dlbridge.dumps(tensor)
    assert sizes(buffers) == [size] and len(data) < 200
    for arrived in (dlbridge.loads(data, buffers), dlbridge.loads(data, copied(buffers))):
        assert type(arrived) is torch.Tensor
        assert (arrived.dtype, arrived.shape) == (tensor.dtype, tensor.shape)
        assert arrived.tolist() == tensor.tolist()
        assert not arrived.is_conj() and not arrived.is_neg()
        if name in ("transposed", "channels last", "expanded", "overlapping"):
            assert arrived.stride() == tensor.stride()


def test_in_one_process_the_memory_is_the_same(road: str) -> None:
    tensor, array = torch.arange(6.0), np.arange(6.0).reshape(2, 3).T
    for x in (tensor, tensor.reshape(2, 3).T, array, dlbridge.from_dlpack(array)):
        arrived = dlbridge.loads(*dlbridge.dumps(x))
        assert address(np.asarray(arrived)) == address(np.asarray(x))
    data, buffers = dlbridge.dumps([tensor])
    del tensor
    dlbridge.loads(data, buffers)[0][0] = 7  # the buffers keep the memory
    assert dlbridge.loads(data, buffers)[0].tolist() == [7, 1, 2, 3, 4, 5]


def test_a_leaf_stays_a_leaf_and_a_graph_is_cut() -> None:
    leaf = torch.ones(2, requires_grad=True)
    parameter = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    arrived = there_and_back([leaf, leaf * 2, parameter])
    assert [each.requires_grad for each in arrived] == [True, False, False]
    assert [each.is_leaf for each in arrived] == [True, True, True]
    assert type(arrived[2]) is torch.nn.Parameter
    arrived[0].sum().backward()
    assert arrived[0].grad.tolist() == [1, 1]


def test_a_module_arrives_with_its_ties() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight
    data, buffers = dlbridge.dumps(module)
    assert sorted(sizes(buffers)) == [12, 12, 36]
    arrived = dlbridge.loads(data, copied(buffers))
    assert arrived[1].weight is arrived[0].weight
    x = torch.rand(4, 3)
    assert torch.equal(arrived(x), module(x))
    torch.optim.SGD(arrived.parameters(), lr=0.1).step()


ARRAYS: dict[str, tuple[np.ndarray, list[int]]] = {
    "plain": (np.arange(6.0).reshape(2, 3), [48]),
    "Fortran": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), [48]),
    "permuted": (np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1), [192]),
    "reversed": (np.arange(6.0)[::-1], [48]),
    "reversed and permuted": (np.arange(24).reshape(2, 3, 4)[:, ::-1].transpose(1, 2, 0), [192]),
    "with gaps": (np.arange(24.0).reshape(4, 6)[:, ::2], [96]),
    "broadcast": (np.broadcast_to(np.arange(3.0), (1000, 3)), [24]),
    "bfloat16": (np.arange(3).astype(ml_dtypes.bfloat16), [6]),
    "bfloat16 with gaps": (np.arange(9).astype(ml_dtypes.bfloat16)[::4], [6]),
    "other byte order": (np.arange(6, dtype=">i4"), [24]),
    "other byte order with gaps": (np.arange(6, dtype=">i4")[::2], []),
    "empty": (np.zeros((0, 3))[:, ::2], [0]),
    "one number": (np.array(3.0), [8]),
    "dates": (np.array(["2026-11-28"], "M8[D]"), []),
    "objects": (np.array([None, "x"]), []),
    "a structure": (np.zeros(2, dtype=[("x", "f4")]), [8]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_arrives_as_it_was(name: str) -> None:
    array, expected = ARRAYS[name]
    data, buffers = dlbridge.dumps(array)
    assert sizes(buffers) == expected
    arrived = dlbridge.loads(data, copied(buffers))
    by_pickle = pickle.loads(pickle.dumps(array, 5))  # which may give its bytes another order
    assert (arrived.dtype, arrived.shape) == (by_pickle.dtype, array.shape)
    assert np.array_equal(arrived, array)
    assert not (expected and arrived.flags.writeable and arrived.nbytes)


@given(arrays.arrays(np.int16, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)), st.data())
def test_any_view_arrives_and_drags_nothing_along(array: np.ndarray, data: st.DataObject) -> None:
    view = array
    if array.ndim and array.size:
        index = data.draw(arrays.basic_indices(array.shape, allow_newaxis=True))
        view = np.asarray(array[index])
        view = view.transpose(data.draw(st.permutations(range(view.ndim))))
    sent, buffers = dlbridge.dumps(view)
    arrived = dlbridge.loads(sent, buffers)
    assert np.array_equal(arrived, view) and sizes(buffers)[0] <= view.nbytes


SOURCES = {
    "permuted": np.arange(6.0).reshape(2, 3).T,
    "read-only": torch.ones(2, requires_grad=True),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "with gaps": np.arange(10.0)[::3],
    "expanded": torch.ones(1).expand(1000),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_managed_tensor_may_be_pickled(name: str) -> None:
    managed = dlbridge.from_dlpack(SOURCES[name])
    seen = (managed.shape, managed.dtype, managed.readonly)
    ways = [pickle.loads(pickle.dumps(managed, protocol)) for protocol in range(6)]
    for arrived in [*ways, copy.copy(managed), copy.deepcopy(managed), there_and_back(managed)]:
        assert type(arrived) is dlbridge.ManagedTensor
        assert (arrived.shape, arrived.dtype) == seen[:2]
        assert arrived.readonly or not managed.readonly
        assert np.array_equal(np.asarray(arrived), np.asarray(managed))
    assert [arrived.readonly for arrived in ways] == [managed.readonly] * 6


def test_a_managed_tensor_that_numpy_cannot_make_again_is_refused() -> None:
    pairs = dlbridge.from_dlpack(torch.ones(2, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2))
    with pytest.raises(
        dlbridge.ConversionRefused, match="cannot pickle a ManagedTensor of dtype f"
    ):
        pickle.dumps(pairs)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_the_fix_of_what_pickle_refuses_is_a_call_that_works() -> None:
    x = dlbridge.from_dlpack(torch.tensor([1 + 2j], dtype=torch.complex32))
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        pickle.dumps(x)
    assert caught.value.fix == (
        'dlbridge.dumps(x, policy=dlbridge.host.replace(dtype="upcast")) to copy'
    )
    sent = dlbridge.dumps(x, policy=dlbridge.host.replace(dtype="upcast"))
    assert dlbridge.to_numpy(dlbridge.loads(*sent)).tolist() == [1 + 2j]


def test_memory_of_a_device_is_refused_and_pinned_memory_is_not() -> None:
    on_device, _ = make_f32(device=(2, 0))
    with pytest.raises(dlbridge.ConversionRefused, match=r"on cuda:0 .*device='cpu'") as caught:
        pickle.dumps(dlbridge.from_dlpack(on_device))
    assert caught.value.fix == "dlbridge.from_dlpack(x, device='cpu')"
    for device in ((3, 0), (13, 0)):
        capsule, _ = make_f32(device=device)
        arrived = pickle.loads(pickle.dumps(dlbridge.from_dlpack(capsule)))
        assert np.asarray(arrived).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_policy_decides_what_may_be_sent() -> None:
    pending = TENSORS["conj"][0]
    for x in (torch.ones(2, requires_grad=True), pending):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.dumps([x], policy="strict")
        with dlbridge.policy("strict"), pytest.raises(dlbridge.ConversionRefused):
            dlbridge.dumps([x])
    gaps = np.arange(1000.0)[::100]
    for x in (gaps, dlbridge.from_dlpack(gaps)):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.dumps(x, policy="zero_copy")
    with dlbridge.no_copies(), pytest.raises(dlbridge.ConversionRefused):
        dlbridge.dumps(pending)
    with pytest.raises(ValueError, match="no preset"):
        dlbridge.dumps(pending, policy="generous")
    for x in (torch.ones(2), np.ones(2, "f4"), np.ones((2, 1), ">f4"), np.ones((2, 1), order="F")):
        data, buffers = dlbridge.dumps([x, dlbridge.from_dlpack(x)], policy="snapshot")
        x[:] = 0
        for arrived in dlbridge.loads(data, buffers):
            assert np.asarray(arrived).ravel().tolist() == [1, 1]
    swapped = np.ones(2, ">f4")
    assert dlbridge.loads(*dlbridge.dumps(swapped, policy="snapshot")).dtype == swapped.dtype


@pytest.mark.parametrize("kind", ["M8", "m8", "V0", "S0", "U0", "M8[ns]", "S3", "U2", "V4"])
def test_what_is_no_number_goes_as_numpy_sends_it(kind: str) -> None:
    x = np.zeros(2, kind)
    arrived = dlbridge.loads(*dlbridge.dumps({"x": x}))["x"]
    assert arrived.dtype == x.dtype and arrived.tobytes() == x.tobytes()


def test_the_policy_decides_what_is_made_of_read_only_memory(road: str) -> None:
    data, buffers = dlbridge.dumps(torch.ones(2))
    assert dlbridge.loads(data, copied(buffers)).add_(1).tolist() == [2, 2]
    for policy in ("zero_copy", "strict"):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.loads(data, copied(buffers), policy=policy)
        assert dlbridge.loads(data, buffers, policy=policy).tolist() == [1, 1]
    alias = dlbridge.host.replace(readonly="alias")
    (memory,) = copied(buffers)
    arrived = dlbridge.loads(data, [memory], policy=alias)
    assert arrived.data_ptr() == address(np.frombuffer(memory))


def test_the_ledger_tells_what_was_copied() -> None:
    with dlbridge.trace() as log:
        dlbridge.dumps([torch.ones(8), np.arange(1000.0)[::100], TENSORS["conj"][0]])
    assert log.total.bytes_copied == 80 + 16


class Marked(torch.Tensor):
    pass


def of_their_own() -> dict[str, Any]:
    named = torch.ones(2)
    named.label = "x"  # type: ignore[attr-defined]
    return {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "a subclass": torch.ones(2).as_subclass(Marked),
        "with an attribute": named,
    }


@pytest.mark.keeps_sources  # torch imports what makes some of these
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["sparse", "meta", "quantised", "a subclass", "with an attribute"])
def test_what_has_more_than_memory_goes_as_its_library_sends_it(name: str) -> None:
    x = of_their_own()[name]
    arrived = there_and_back([x])[0]
    expected = pickle.loads(pickle.dumps([x], 5))[0]
    assert (type(arrived), arrived.dtype) == (type(expected), expected.dtype)
    assert (arrived.layout, arrived.device) == (expected.layout, expected.device)
    assert vars(arrived) == vars(expected) == vars(x)
    if not arrived.is_meta:
        values = [each.dequantize() if each.is_quantized else each for each in (arrived, expected)]
        assert values[0].to_dense().tolist() == values[1].to_dense().tolist()


@pytest.mark.skipif(not hasattr(torch.Tensor, "has_names"), reason="this torch has no names")
@pytest.mark.filterwarnings("ignore:Named tensors")
def test_names_are_not_dropped() -> None:
    with pytest.raises(RuntimeError, match="Named tensors"):
        dlbridge.dumps(torch.ones(2, names=("x",)))


def test_nothing_global_changes() -> None:
    before = dict(copyreg.dispatch_table)
    values = [torch.arange(6.0), np.arange(6.0)[::2], {"x": torch.ones(2, requires_grad=True)}]
    pickled = pickle.dumps(values, 5)
    dlbridge.loads(*dlbridge.dumps(values))
    assert pickle.dumps(values, 5) == pickled
    assert dict(copyreg.dispatch_table) == before


class Own(dlbridge.Pickler):
    """An engine's own: what it knows itself stands over ours."""

    def persistent_id(self, x: Any) -> Any:
        return "kept" if isinstance(x, np.ndarray) and x.ndim == 0 else None


def test_an_engine_may_pickle_with_it() -> None:
    file, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    Own(file, buffer_callback=buffers.append).dump([np.array(1.0), torch.ones(3)])
    assert sizes(buffers) == [12] and b"kept" in file.getvalue()
    in_band = io.BytesIO()
    dlbridge.Pickler(in_band).dump([torch.arange(1000.0)[::100]])
    assert pickle.loads(in_band.getvalue())[0].tolist() == list(range(0, 1000, 100))
    assert len(in_band.getvalue()) < 200
    old, tensor = io.BytesIO(), torch.ones(3)
    dlbridge.Pickler(old, 4).dump(tensor)  # before buffers: as pickle itself does
    assert old.getvalue() == pickle.dumps(tensor, 4)
    with pytest.raises(ValueError, match="buffer_callback"):
        dlbridge.Pickler(io.BytesIO(), 4, buffer_callback=buffers.append)


def test_a_registered_reducer_is_still_asked() -> None:
    class Thing:
        pass

    dlbridge.dumps(None)  # what is remembered of it is older
    copyreg.pickle(Thing, lambda thing: (int, ("7",)))
    try:
        assert there_and_back([Thing()]) == [7]
    finally:
        del copyreg.dispatch_table[Thing]


def test_the_source_may_die_before_the_buffers(road: str) -> None:
    capsule, _ = make_f32()
    managed = dlbridge.from_dlpack(capsule)
    data, buffers = dlbridge.dumps(managed)
    del managed, capsule
    arrived = dlbridge.loads(data, buffers)
    del buffers
    assert np.asarray(arrived).tolist() == [0, 1, 2, 3, 4, 5]


OF_ANY_KIND = [
    torch.ones(4, 4).T,
    torch.ones(16),
    np.ones((4, 4)).T[::-1],
    np.ones(16),
    dlbridge.from_dlpack(np.ones(16)),
]


@pytest.mark.parametrize("x", OF_ANY_KIND, ids=range(len(OF_ANY_KIND)))
def test_too_little_or_too_much_memory_is_an_error(x: Any) -> None:
    data, buffers = dlbridge.dumps(x)
    (whole,) = copied(buffers)
    for wrong in ([], [b""], [None], [whole[:-1]], [whole[:8]], [whole + whole]):
        with pytest.raises((pickle.UnpicklingError, TypeError, ValueError, RuntimeError)):
            dlbridge.loads(data, wrong)


@pytest.mark.parametrize("x", OF_ANY_KIND, ids=range(len(OF_ANY_KIND)))
def test_a_buffer_in_use_cannot_be_taken_away(x: Any) -> None:
    data, buffers = dlbridge.dumps(x)
    memory = bytearray(buffers[0])
    arrived = dlbridge.loads(data, [memory])
    with pytest.raises(BufferError):
        memory.clear()
    del arrived
    settle()
    memory.clear()


ELSEWHERE = """
import pathlib, sys
import dlbridge
folder = pathlib.Path(sys.argv[1])
buffers = [bytearray(each.read_bytes()) for each in sorted(folder.glob("*.buffer"))]
x = dlbridge.loads((folder / "data").read_bytes(), buffers)
x["torch"].add_(1)
print(x["torch"].tolist(), x["numpy"].tolist(), str(x["managed"].dtype))
"""


def test_another_process_takes_it_over(tmp_path: Path) -> None:
    array = np.arange(6.0)[::-2]
    x = {"torch": TENSORS["neg"][0], "numpy": array, "managed": dlbridge.from_dlpack(array)}
    data, buffers = dlbridge.dumps(x)
    (tmp_path / "data").write_bytes(data)
    for i, buffer in enumerate(buffers):
        (tmp_path / f"{i}.buffer").write_bytes(buffer)
    said = run_child(ELSEWHERE, str(tmp_path))
    assert said == "[-1.0, 2.0] [5.0, 3.0, 1.0] float64\n"


@pytest.mark.keeps_sources  # JAX, imported here, keeps constants
def test_jax_arrives_as_jax() -> None:
    jax = pytest.importorskip("jax")
    for x in (jax.numpy.arange(6.0).reshape(2, 3), jax.numpy.ones(3, dtype="bfloat16")):
        data, buffers = dlbridge.dumps({"x": x})
        assert sizes(buffers) == [x.nbytes]
        arrived = dlbridge.loads(data, copied(buffers))["x"]
        assert isinstance(arrived, jax.Array) and arrived.dtype == x.dtype
        assert arrived.tolist() == x.tolist()
    for x in (jax.random.key(3), jax.numpy.ones(3, dtype="int4")):
        arrived = there_and_back(x)
        assert arrived.dtype == x.dtype and str(arrived) == str(x)
    del arrived, buffers, x
    settle()
