"""h5py, zarr, dask and netCDF have nothing better than __array__, and xarray what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlbridge

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
xarray = pytest.importorskip("xarray")
netcdf = pytest.importorskip("netCDF4")
dask = pytest.importorskip("dask.array")
torch = pytest.importorskip("torch")

VALUES = np.arange(12, dtype="f4").reshape(3, 4)
COMPRESSED = {"chunks": (2, 4), "compression": "gzip"}


def in_hdf5(folder: Path) -> Any:
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=VALUES, **COMPRESSED)


def in_netcdf(folder: Path) -> Any:
    file = netcdf.Dataset(folder / "x.nc", "w")
    file.createDimension("a", 3)
    file.createDimension("b", 4)
    variable = file.createVariable("x", "f4", ("a", "b"))
    variable.units = "K"
    variable[:] = VALUES
    return variable


def in_netcdf_by_xarray(folder: Path) -> Any:
    xarray.Dataset({"x": (("a", "b"), VALUES)}, {"a": [1, 2, 3]}).to_netcdf(folder / "y.nc")
    return xarray.open_dataset(folder / "y.nc")["x"]


MAKERS = {
    "h5py": in_hdf5,
    "netCDF4": in_netcdf,
    "zarr": lambda folder: zarr.array(VALUES, chunks=(2, 2)),
    "dask": lambda folder: dask.from_array(VALUES, chunks=2),
    "xarray over dask": lambda folder: xarray.DataArray(dask.from_array(VALUES, chunks=2)),
    "xarray over a file": in_netcdf_by_xarray,
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_one_copy(name: str, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    x = MAKERS[name](tmp_path)
    plan = dlbridge.explain(x, "numpy")
    assert plan.steps == ("gather",) and plan.bytes_copied == VALUES.nbytes
    made = dlbridge.to_numpy(x)
    assert np.array_equal(made, VALUES) and type(made) is np.ndarray and made.flags.writeable
    made[...] = 0
    assert np.array_equal(np.asarray(x), VALUES)
    x = MAKERS[name](tmp_path / "again")
    for copy in ({"copy": False}, {"policy": "strict"}):
        with pytest.raises(dlbridge.ConversionRefused, match="no array yet") as caught:
            dlbridge.to_torch(x, **copy)
        assert "np.asarray(x)" in str(caught.value.fix)
    assert torch.equal(dlbridge.to_torch({"x": x})["x"], torch.from_numpy(VALUES))


def test_explain_loads_nothing(tmp_path: Path) -> None:
    file = h5py.File(tmp_path / "x.h5", "w")
    x = file.create_dataset("x", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 20))  # 4 TiB
    assert dlbridge.explain(x, "torch").bytes_copied == 1 << 42

    def fail(block: Any) -> Any:
        raise AssertionError("was computed")

    lazy = dask.from_array(VALUES, chunks=2).map_blocks(fail, dtype="f4", meta=VALUES[:0])
    assert dlbridge.explain(lazy, "numpy").shape == (3, 4)
    with pytest.raises(AssertionError, match="was computed"):
        dlbridge.to_numpy(lazy)


def test_texts_and_fields_of_a_file(tmp_path: Path) -> None:
    file = h5py.File(tmp_path / "x.h5", "w")
    texts = file.create_dataset("texts", data=["a", "b"])
    assert dlbridge.to_numpy(texts).tolist() == [b"a", b"b"]
    assert dlbridge.to_torch({"t": texts, "v": VALUES})["t"] is texts
    with pytest.raises(dlbridge.ConversionRefused, match="of dtype object"):
        dlbridge.to_torch(texts)
    swapped = file.create_dataset("swapped", data=VALUES.astype(">f4"))
    assert dlbridge.explain(swapped, "torch").steps == ("gather", "swap bytes")
    assert torch.equal(dlbridge.to_torch(swapped), torch.from_numpy(VALUES))
    file.close()
    with pytest.raises(RuntimeError, match="dataspace"):  # h5py's own
        dlbridge.to_numpy(swapped)


def test_missing_values_and_scales_of_netcdf_are_not_lost(tmp_path: Path) -> None:
    file = netcdf.Dataset(tmp_path / "x.nc", "w")
    file.createDimension("a", 3)
    holes = file.createVariable("holes", "f4", ("a",))
    holes[:2] = 1
    with pytest.raises(dlbridge.ConversionRefused, match="the mask would be lost"):
        dlbridge.to_numpy(holes)
    packed = file.createVariable("packed", "i2", ("a",))
    packed.scale_factor = 0.5
    packed[:] = [0.5, 1, 1.5]
    with pytest.raises(dlbridge.ConversionRefused, match="made float64") as caught:
        dlbridge.to_numpy(packed)
    made = dlbridge.to_numpy(eval(str(caught.value.fix), {"np": np, "x": packed}))
    assert made.tolist() == [0.5, 1, 1.5]


def test_what_xarray_holds_in_memory_is_a_view() -> None:
    x = xarray.DataArray(VALUES, dims=("a", "b"), coords={"a": [1, 2, 3]}, attrs={"units": "K"})
    for held in (x, x.variable, x[:, ::2]):
        view = dlbridge.to_numpy(held, copy=False)
        assert np.array_equal(view, held) and np.shares_memory(view, VALUES)
    frame = xarray.Dataset({"x": x})
    with pytest.raises(dlbridge.ConversionRefused, match="several arrays") as caught:
        dlbridge.to_torch(frame)
    tree = dlbridge.to_torch(eval(str(caught.value.fix), {"x": frame}))
    assert torch.equal(tree["x"], torch.from_numpy(VALUES))
    dates = xarray.DataArray(np.array(["1970-01-03"], "M8[ns]"))
    fix = str(dlbridge.explain(dates, "torch").fix).partition(" (")[0]
    made = dlbridge.to_torch(eval(fix, {"np": np, "x": dates}))
    assert made.tolist() == [172_800_000_000_000]


@pytest.mark.parametrize("kind", ["masked", "sparse"])
def test_what_dasks_chunks_mean_beside_their_values_is_not_lost(kind: str) -> None:
    lazy = dask.from_array(VALUES, chunks=2)
    if kind == "masked":
        lazy = dask.ma.masked_array(lazy, mask=VALUES > 1)
    else:
        lazy = lazy.map_blocks(pytest.importorskip("scipy.sparse").csr_array)
    for ask in (dlbridge.to_numpy, dlbridge.to_torch):
        with pytest.raises(dlbridge.ConversionRefused) as refused:
            ask(lazy)
        assert refused.value.fix == "x.compute()"
    plan = dlbridge.explain(lazy, "torch")
    assert plan.refused and plan.fix == "x.compute()"
    with pytest.raises(dlbridge.ConversionRefused, match=kind[:4]):
        dlbridge.to_numpy(lazy.compute())  # refused as what it is, with its own way out
