"""Loading for torch: batches, data sets over files, and pictures."""

from __future__ import annotations

import collections
import dataclasses
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import address, run_child, shares
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, Dataset, default_collate

import dlbridge

matplotlib.use("agg")
pytestmark = pytest.mark.keeps_sources  # matplotlib its figures, torch its workers' storages


class Sample(NamedTuple):
    image: Any
    label: int


@dataclasses.dataclass
class Record:
    image: Any
    name: str


# --- collate ------------------------------------------------------------------------------------

ARRAYS = {
    "contiguous": lambda i: np.full((5, 4, 3), i, dtype="u1"),
    "a crop": lambda i: np.arange(600.0).reshape(20, 30)[i : i + 7, 2 * i : 2 * i + 9],
    "channels first": lambda i: (np.arange(60.0).reshape(4, 5, 3) + i).transpose(2, 0, 1),
    "reversed": lambda i: np.arange(6.0)[::-1] + i,
    "0-d": lambda i: np.array(i, dtype="f4"),
    "empty": lambda i: np.empty((0, 3), dtype="f4"),
    "bool": lambda i: np.array([True, i % 2 == 0]),
    "complex": lambda i: np.array([1j * i, 2], dtype="c8"),
    "int16": lambda i: np.arange(3, dtype="i2") * i,
    "large": lambda i: np.full((700, 1000), i, dtype="f4"),
    "tensor": lambda i: torch.arange(6).reshape(2, 3).t() + i,
    "bfloat16": lambda i: torch.full((3,), float(i), dtype=torch.bfloat16),
    "requires grad": lambda i: torch.full((2,), float(i), requires_grad=True),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_batch_is_what_default_collate_makes(name: str) -> None:
    items = [ARRAYS[name](i) for i in range(5)]
    copies = [item.copy() if isinstance(item, np.ndarray) else item for item in items]
    expected = default_collate(copies)
    batch = dlbridge.collate(items)
    assert batch.dtype == expected.dtype and batch.shape == expected.shape
    assert torch.equal(batch, expected) and batch.is_contiguous()
    assert batch.requires_grad == expected.requires_grad


def test_arrays_that_default_collate_cannot_take() -> None:
    jax = pytest.importorskip("jax")
    batch = dlbridge.collate([jax.numpy.ones(3) * i for i in range(3)])
    assert batch[:, 0].tolist() == [0.0, 1.0, 2.0]
    swapped = dlbridge.collate([np.arange(3, dtype=">f4"), np.ones(3, dtype=">f4")])
    assert swapped.dtype == torch.float32 and swapped[0].tolist() == [0.0, 1.0, 2.0]
    fields = np.zeros(4, dtype=[("a", "u1"), ("b", "f4")])
    fields["b"] = 3
    assert dlbridge.collate([fields["b"]]).tolist() == [[3.0] * 4]
    read_only = np.broadcast_to(np.float32(2), 3)
    assert dlbridge.collate([read_only] * 2).tolist() == [[2.0] * 3] * 2


def test_samples_of_every_form() -> None:
    image = np.ones((2, 2), dtype="f4")
    named = dlbridge.collate([Sample(image, 3), Sample(image * 2, 4)])
    assert type(named) is Sample
    assert named.image.shape == (2, 2, 2) and named.label.tolist() == [3, 4]
    records = dlbridge.collate([Record(image, "a"), Record(image, "b")])
    assert type(records) is Record and records.name == ["a", "b"]
    tree = dlbridge.collate([{"x": (image, [1.5])}, {"x": (image, [2.5])}])
    assert tree["x"][0].shape == (2, 2, 2) and tree["x"][1][0].tolist() == [1.5, 2.5]
    assert tree["x"][1][0].dtype == default_collate([1.5]).dtype
    ordered = dlbridge.collate([collections.OrderedDict(a=1), collections.OrderedDict(a=2)])
    assert type(ordered) is collections.OrderedDict and ordered["a"].tolist() == [1, 2]
    assert dlbridge.collate([None, None]) == [None, None]


@pytest.mark.parametrize(
    "items",
    [
        [np.ones(3), np.ones(4)],
        [np.ones(3), np.ones(3, dtype="f4")],
        [{"a": 1}, {"b": 1}],
        [(1, 2), (1,)],
        [],
    ],
)
def test_samples_that_are_not_alike_are_refused(items: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"differ|at least one"):
        dlbridge.collate(items)


def test_a_batch_is_written_over_only_when_nobody_looks_at_it() -> None:
    def make(value: int) -> torch.Tensor:
        batch: torch.Tensor = dlbridge.collate([np.full(1 << 19, value, dtype="f4")] * 2)
        return batch

    first = make(1)
    where = first.data_ptr()
    part = first[1, :5]
    array = first[0].numpy()
    second = make(2)
    del first
    third = make(3)
    assert part.tolist() == [1.0] * 5 and array[0] == 1 and second[0, 0] == 2 and third[0, 0] == 3
    del part
    assert make(4).data_ptr() != where and array[0] == 1
    del array
    where = [make(value).data_ptr() for value in range(5, 8)]
    assert len(set(where)) == 1, "what nobody looks at is used again"
    assert second.data_ptr() % 64 == 0


def test_many_batches_at_a_time() -> None:
    kept = [dlbridge.collate([np.full(1 << 18, i, dtype="f4")]) for i in range(9)]
    assert [batch[0, 0].item() for batch in kept] == list(range(9))


def test_the_ledger_has_a_line_for_the_batch() -> None:
    with dlbridge.trace() as log:
        dlbridge.collate([np.ones(4), np.ones(4)])
    (crossing,) = log
    assert (crossing.outcome, crossing.bytes_copied, crossing.file) == ("copy", 64, __file__)
    assert crossing.steps == ("gather",) and crossing.shape == (2, 4)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint2, "M8[s]", object, "U3", "V8"])
def test_a_type_that_torch_has_not_is_refused(dtype: Any) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match="as torch"):
        dlbridge.collate([np.zeros(3, dtype)] * 2)


def test_gather_checks_what_it_is_given() -> None:
    gather = dlbridge._core.gather
    target = np.zeros((2, 3))
    for wrong in ([np.ones(3)], [np.ones(3), np.ones(2)], [np.ones(3), np.ones(3, dtype="f4")]):
        with pytest.raises(ValueError, match=r"gather|rows"):
            gather(target, wrong)
    with pytest.raises(TypeError, match="NumPy"):
        gather(target, [np.ones(3), [1, 2, 3]])
    for dtype in ("M8[s]", object, "V3", ml_dtypes.int4, ml_dtypes.float4_e2m1fn):
        with pytest.raises(ValueError, match="rows"):
            gather(np.zeros((2, 3), dtype), [np.zeros(3, dtype)] * 2)
    gather(target, [np.arange(3.0), np.arange(3.0)[::-1]])
    assert target.tolist() == [[0, 1, 2], [2, 1, 0]]


# --- the data set -------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Any]:
    images = np.random.default_rng(0).integers(0, 255, (10, 6, 5, 3)).astype("u1")
    np.save(tmp_path / "images.npy", images)
    images.tofile(tmp_path / "images.raw")
    return tmp_path / "images.npy", tmp_path / "images.raw", images


def test_a_sample_is_a_view_of_the_file(files: Any) -> None:
    path, raw, images = files
    mapped = np.memmap(raw, dtype="u1", mode="r", shape=images.shape)
    for dataset in (dlbridge.ArrayDataset(path), dlbridge.ArrayDataset(mapped)):
        assert isinstance(dataset, Dataset) and len(dataset) == 10
        sample = dataset[3]
        assert isinstance(sample, np.memmap) and shares(sample, dataset.arrays[0])
        assert address(sample) - address(dataset.arrays[0]) == 3 * 90
        with dlbridge.trace() as log:
            batches = list(DataLoader(dataset, batch_size=4, collate_fn=dlbridge.collate))
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert np.array_equal(torch.cat(batches).numpy(), images)
        assert log.total.bytes_copied == images.nbytes, "every byte once"


def test_several_arrays_make_tuples_and_a_transform_is_called() -> None:
    labels = torch.arange(4)
    dataset = dlbridge.ArrayDataset(np.ones((4, 2)), labels)
    image, label = dataset[2]
    assert image.tolist() == [1.0, 1.0] and label == 2
    doubled = dlbridge.ArrayDataset(
        np.ones((4, 2)), labels, transform=lambda image, label: (image * 2, label)
    )
    (images, numbers) = next(iter(DataLoader(doubled, batch_size=4, collate_fn=dlbridge.collate)))
    assert images.sum() == 16 and numbers.tolist() == [0, 1, 2, 3]


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        dlbridge.ArrayDataset(np.ones(3), np.ones(4))
    with pytest.raises(TypeError, match="at least one"):
        dlbridge.ArrayDataset()
    with pytest.raises(TypeError, match="paths"):
        dlbridge.ArrayDataset([1, 2])


def test_a_file_travels_by_its_name(files: Any) -> None:
    path, raw, images = files
    dataset = dlbridge.ArrayDataset(path, np.arange(10))
    sent = pickle.dumps(dataset)
    assert len(sent) < images.nbytes
    again = pickle.loads(sent)
    assert isinstance(again.arrays[0], np.memmap) and np.array_equal(again[7][0], images[7])
    part = dlbridge.ArrayDataset(np.memmap(raw, dtype="u1", mode="r", shape=images.shape)[2:])
    assert np.array_equal(pickle.loads(pickle.dumps(part))[0], images[2])


def test_in_workers_the_batch_is_in_shared_memory(files: Any) -> None:
    path, _, images = files
    out = run_child(
        f"""
import torch, dlbridge
from torch.utils.data import DataLoader
dataset = dlbridge.ArrayDataset({str(path)!r})
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        loader = DataLoader(dataset, batch_size=5, num_workers=2, collate_fn=dlbridge.collate,
                            multiprocessing_context=method)
        total = 0
        for batch in loader:
            total += int(batch.sum(dtype=torch.int64))
            print(method, tuple(batch.shape), batch.is_shared())
        print(total)
"""
    )
    lines = [f"{m} (5, 6, 5, 3) True" for m in ("fork", "spawn") for _ in range(2)]
    total = str(int(images.sum(dtype=np.int64)))
    assert out.split("\n") == [*lines[:2], total, *lines[2:], total, ""]


# --- show ---------------------------------------------------------------------------------------

SHOWN = {
    "grey": (lambda: np.zeros((8, 9)), [(8, 9)]),
    "rgb last": (lambda: np.zeros((8, 9, 3), dtype="u1"), [(8, 9, 3)]),
    "rgb first": (lambda: torch.zeros(3, 8, 9), [(8, 9, 3)]),
    "one channel": (lambda: torch.zeros(1, 8, 9), [(8, 9)]),
    "batch last": (lambda: torch.zeros(4, 8, 9, 3), [(8, 9, 3)] * 4),
    "batch first": (lambda: torch.zeros(4, 3, 8, 9), [(8, 9, 3)] * 4),
    "feature maps": (lambda: torch.zeros(2, 16, 8, 9), [(8, 9)] * 32),
    "maps of one": (lambda: torch.zeros(16, 8, 9), [(8, 9)] * 16),
    "a list": (lambda: [np.zeros((4, 4)), torch.zeros(3, 5, 5)], [(4, 4), (5, 5, 3)]),
    "in a graph": (lambda: torch.zeros(3, 8, 9, requires_grad=True) * 1, [(8, 9, 3)]),
    "bfloat16": (lambda: torch.zeros(8, 9, dtype=torch.bfloat16), [(8, 9)]),
    "complex": (lambda: torch.zeros(8, 9, dtype=torch.complex64).conj(), [(8, 9)]),
    "bool": (lambda: np.eye(5) > 0, [(5, 5)]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_show_draws_each_image(name: str, tmp_path: Path) -> None:
    make, shapes = SHOWN[name]
    path = tmp_path / "picture.png"
    figure = dlbridge.show(make(), path=path)
    assert isinstance(figure, Figure)
    drawn = [axes.images[0].get_array().shape for axes in figure.axes]
    assert drawn == shapes
    assert path.read_bytes().startswith(b"\x89PNG")


def test_show_scales_values_and_keeps_bytes() -> None:
    figure = dlbridge.show(np.array([[-1.0, 3.0], [1.0, np.nan]]))
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 1], [0.5, 0]]
    figure = dlbridge.show(np.array([[10, 200]], dtype="u1"))
    assert figure.axes[0].images[0].get_array().tolist() == [[10, 200]]


def test_show_takes_what_it_is_told() -> None:
    figure = dlbridge.show(np.zeros((3, 8, 3)), channels="none", columns=2, titles="abc")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]
    for x, options, error in (
        (np.zeros(3), {}, ValueError),
        (np.zeros((2, 5, 5)), {"channels": "first"}, ValueError),
        (np.zeros((2, 2)), {"channels": "middle"}, ValueError),
        ([], {}, ValueError),
        ("text", {}, TypeError),
    ):
        with pytest.raises(error):
            dlbridge.show(x, **options)


def test_show_needs_matplotlib_only_when_called() -> None:
    out = run_child(
        "import sys, dlbridge; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    assert out == "False False\n"
