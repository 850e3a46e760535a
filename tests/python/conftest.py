"""Fixtures for every test: the two roads to torch, and the counters that must come back."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator

import dlbridge_probe as probe
import pytest
import torch
from dlb_support import ROADS, counters, settle, sources_alive
from hypothesis import HealthCheck, given, settings, strategies
from torch_sources import SOURCES

import dlbridge

settings.register_profile(
    "dlbridge",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("dlbridge")


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> Iterator[str]:
    """The road to torch that the test runs on; the one in use before comes back afterwards."""
    before = dlbridge._core.torch_road()
    try:
        dlbridge._core.torch_road(request.param)
    except RuntimeError as error:
        pytest.skip(f"no {request.param} road: {error}")
    yield request.param
    dlbridge._core.torch_road(before)


@pytest.fixture
def guarded_device() -> Iterator[None]:
    """The guarded device, as a runtime of the module; nothing may be left on it."""
    from guarded_sources import registered

    with registered():
        yield


def pytest_configure() -> None:
    """pytest prints the arguments of what failed, and torch's own repr reads freed memory."""

    def brief(tensor: torch.Tensor, **_: object) -> str:
        return f"<{type(tensor).__name__} {tensor.dtype} {tensor.layout} at {id(tensor):#x}>"

    torch.Tensor.__repr__ = brief


@given(strategies.none())
def of_hypothesis(_: None) -> None:
    """Its first test of all puts another state into numpy.random, whose array ends with that."""


def pytest_collection_finish() -> None:
    """What is there before the first test stays: collections look only at what tests make."""
    of_hypothesis()
    importlib.import_module("numpy.ma")  # its constants are arrays, and JAX imports it late
    probe.count_numpy_memory()
    for make in SOURCES.values():
        with make():  # torch imports half of itself for some of these
            pass
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


_failed = pytest.StashKey[bool]()
_unsettled = [True]  # a failed test's traceback keeps its objects alive for a while


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[_failed] = call.excinfo is not None
    return report


@pytest.fixture(autouse=True, scope="module")
def what_a_file_imported_stays() -> Iterator[None]:
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left_alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test the counters are as they were before it.

    Collecting garbage takes longer than most tests, so it is done where a counter is off.
    """
    clean = not _unsettled[0]
    if not clean:
        settle()
    keeps = request.node.get_closest_marker("keeps_sources") is not None

    def counted() -> dict[str, int]:
        return counters() if keeps else counters() | sources_alive()

    before = counted()
    yield
    broken = request.node.get_closest_marker("leaves_behind") is not None
    _unsettled[0] = broken or request.node.stash.get(_failed, False)
    if _unsettled[0]:
        return
    if counted() != before:
        settle()
    after = counted()
    _unsettled[0] = after != before
    left = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert not left if clean else max(left.values(), default=0) <= 0, f"left behind: {left}"
