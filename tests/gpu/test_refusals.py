"""What cannot be: refused with its reason, the deleter run once, the device still usable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlbridge


class Interface:
    """An object that says that an address is on a GPU."""

    def __init__(self, address: int, shape: tuple[int, ...] = (8,)) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": "<f4",
            "data": (address, False),
        }


def test_memory_of_the_host_is_not_taken_for_a_device() -> None:
    array = np.zeros(8, np.float32)
    torch.zeros(1, device="cuda")
    with pytest.raises(dlbridge.ConversionRefused, match="knows of no memory"):
        dlbridge.to_numpy(Interface(array.ctypes.data))


def test_an_interface_is_read_by_its_pointers_own_device() -> None:
    x = torch.arange(8.0, device="cuda")
    torch.cuda.synchronize()
    assert dlbridge.to_numpy(Interface(x.data_ptr())).tolist() == x.tolist()


def test_too_little_memory_on_the_device_is_a_memory_error() -> None:
    huge = np.broadcast_to(np.float64(1), (1 << 38,))
    with pytest.raises(MemoryError):
        dlbridge.from_dlpack(huge, device="cuda")
    assert dlbridge.to_numpy(torch.ones(3, device="cuda")).tolist() == [1, 1, 1]


def test_a_device_that_is_not_there() -> None:
    with pytest.raises((RuntimeError, dlbridge.ConversionRefused)):
        dlbridge.from_dlpack(np.ones(3), device="cuda:63")
    assert dlbridge.to_numpy(torch.ones(3, device="cuda")).tolist() == [1, 1, 1]


def test_streams_are_read_as_dlpack_says() -> None:
    managed = dlbridge.from_dlpack(torch.ones(3, device="cuda"))
    for stream in (None, -1, 1, 2, torch.cuda.Stream().cuda_stream):
        capsule = managed.__dlpack__(stream=stream, max_version=(1, 3))
        assert torch.from_dlpack(capsule).tolist() == [1, 1, 1]
    with pytest.raises(dlbridge.ConversionRefused):
        managed.__dlpack__(stream=0)
    host = managed.__dlpack__(dl_device=(1, 0), max_version=(1, 3))
    assert dlbridge.to_numpy(host).tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="stream must be"):
        dlbridge.to_numpy(torch.ones(3, device="cuda"), stream="default")
