"""Memory of copies that ended, kept for the next copies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from dlb_support import run_python

import dlbridge

MEGABYTE = 1 << 20
SOURCE = np.arange(2 * MEGABYTE, dtype="f4").reshape(1024, 2048)


@pytest.fixture(autouse=True)
def _an_empty_pool() -> Iterator[None]:
    before = dlbridge.pool_limit(64 * MEGABYTE)
    dlbridge.release_pool()
    yield
    dlbridge.release_pool()
    dlbridge.pool_limit(before)


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_copy_that_died_leaves_its_memory_to_the_next() -> None:
    first = dlbridge.to_numpy(SOURCE, copy=True)
    where = address(first)
    del first
    second = dlbridge.to_numpy(SOURCE.T, copy=True)
    assert address(second) == where
    np.testing.assert_array_equal(second, SOURCE.T)


def test_memory_waits_for_the_last_view_of_the_copy() -> None:
    first = dlbridge.to_numpy(SOURCE, copy=True)
    row = first[1023]
    del first
    second = dlbridge.to_numpy(SOURCE + 1, copy=True)
    np.testing.assert_array_equal(row, SOURCE[1023])
    np.testing.assert_array_equal(second, SOURCE + 1)


def test_memory_goes_from_one_library_to_the_other() -> None:
    array = dlbridge.to_numpy(SOURCE, copy=True)
    where = address(array)
    del array
    tensor = dlbridge.to_torch(SOURCE, copy=True)
    assert tensor.data_ptr() == where
    assert torch.equal(tensor, torch.from_numpy(SOURCE))


def test_release_gives_back_what_is_kept_and_says_how_much() -> None:
    del_me = dlbridge.to_numpy(SOURCE, copy=True)
    assert dlbridge.release_pool() == 0
    del del_me
    assert dlbridge.release_pool() >= SOURCE.nbytes
    assert dlbridge.release_pool() == 0


def test_a_limit_of_zero_keeps_nothing() -> None:
    assert dlbridge.pool_limit(0) == 64 * MEGABYTE
    dlbridge.to_numpy(SOURCE, copy=True)
    assert dlbridge.release_pool() == 0
    assert dlbridge.pool_limit() == 0


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_what_is_no_number_of_bytes_is_refused(limit: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        dlbridge.pool_limit(limit)  # type: ignore[arg-type]
    assert dlbridge.pool_limit(None) == 64 * MEGABYTE


@pytest.mark.parametrize(
    ("given", "limit"),
    [("0", 0), ("1000000", 1_000_000), ("many", 256 * MEGABYTE), ("-1", 256 * MEGABYTE)],
)
def test_the_environment_sets_the_first_limit(
    given: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLBRIDGE_POOL_BYTES", given)
    code = "import dlbridge; print(dlbridge.pool_limit())"
    assert run_python("-c", code).strip() == str(limit)


def test_threads_that_copy_at_once_get_memory_of_their_own() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        mine = SOURCE + number
        for _ in range(20):
            copies = [dlbridge.to_numpy(mine, copy=True) for _ in range(2)]
            wrong.extend(number for copy in copies if not np.array_equal(copy, mine))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_copies_into_memory_of_its_own() -> None:
    code = """
import os
import numpy as np
import dlbridge
source = np.arange(1 << 20, dtype="f4")
dlbridge.to_numpy(source, copy=True)   # left in the pool
child = os.fork()
if child == 0:
    copy = dlbridge.to_numpy(source + 1, copy=True)
    os._exit(0 if np.array_equal(copy, source + 1) else 1)
copy = dlbridge.to_numpy(source, copy=True)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert np.array_equal(copy, source)
print("both")
"""
    assert run_python("-c", code).strip() == "both"
