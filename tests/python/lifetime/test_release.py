"""Law 4: deleters run once, on any thread, with or without the GIL, never waiting for it, and are
safe while the interpreter ends and after it has ended."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
import torch
from dlb_support import READ_ONLY, address, make_f32, producer_f32, run_child, settle

import dlbridge

SETUP = """
import gc, sys, threading, weakref
import numpy as np
import torch
import dlbridge
import dlbridge_probe as probe
from dlb_support import live, settle, producer_f32

class Kept:
    '''Python memory whose end can be seen.'''
    def __init__(self):
        self.array = np.arange(6.0)
        self.__array_interface__ = self.array.__array_interface__

def kept_buffer():
    return bytearray(64)

def torch_own(): return torch.arange(6.0)
def torch_leaf(): return torch.arange(6.0).requires_grad_()
def torch_conj(): return torch.ones(3, dtype=torch.complex64).conj()
def torch_over_numpy(): return torch.from_numpy(np.arange(6.0))
def torch_of_ours(): return dlbridge.to_torch(np.arange(6.0))
def numpy_own(): return np.arange(6.0)
def numpy_of_ours(): return dlbridge.to_numpy(torch.arange(6.0))
def numpy_read_only():
    a = np.arange(6.0); a.flags.writeable = False; return a
def managed(): return dlbridge.from_dlpack(np.arange(6.0))
def made_in_python(): return producer_f32()
def an_interface(): return Kept()

class Foreign:
    '''Its capsules are NumPy's or torch's own: their deleters wait for the GIL.'''
    def __init__(self, inner): self.inner = inner
    def __dlpack__(self, **keywords): return self.inner.__dlpack__(**keywords)
    def __dlpack_device__(self): return (1, 0)

def foreign_numpy(): return Foreign(np.arange(6.0))
def foreign_torch(): return Foreign(torch.arange(6.0))
def raw_numpy(): return dlbridge.from_dlpack(np.arange(6.0).__dlpack__(max_version=(1, 0)))
def raw_torch(): return dlbridge.from_dlpack(torch.arange(6.0).__dlpack__(max_version=(1, 0)))

SOURCES = [torch_own, torch_leaf, torch_conj, torch_over_numpy, torch_of_ours,
           numpy_own, numpy_of_ours, numpy_read_only, managed, made_in_python, an_interface,
           kept_buffer, foreign_numpy, foreign_torch, raw_numpy, raw_torch]
"""


def test_a_deleter_never_waits_for_the_gil(road: str) -> None:
    """Another thread calls it while this one holds the GIL and waits for that thread."""
    out = run_child(
        SETUP
        + """
settle()
gc.freeze()  # collections then look only at what is made here, or most of the time is theirs
before = live()
for make in SOURCES:
    for keep_source in (True, False):
        print(make.__name__, keep_source, flush=True)
        source = make()
        held = [probe.hold(dlbridge.capsule(source)) for _ in range(3)]
        if not keep_source:
            source = None
        for one in held:
            one.release_on_thread()
        one = held = source = None
        settle()
        assert live() == before, make.__name__
print("done")
""",
        road=road,
        timeout=90,
    )
    assert out.endswith("done\n")


def test_a_release_without_the_gil_is_carried_out_later(road: str) -> None:
    tensor = torch.arange(6.0)
    gone = weakref.ref(tensor)
    held = probe.hold(dlbridge.capsule(tensor))
    held.release_on_thread()
    del tensor, held
    settle()
    assert gone() is None
    producer = producer_f32()
    held = probe.hold(dlbridge.capsule(producer))
    held.release_on_thread()
    settle()
    assert probe.deletes(producer.token) == probe.exports(producer.token) == 1


def test_torch_frees_our_views_on_its_own_threads(road: str) -> None:
    # torch calls the deleter of an imported tensor without the GIL.
    capsule, token = make_f32()
    tensor = dlbridge.to_torch(capsule)
    del tensor, capsule
    settle()
    assert probe.deletes(token) == 1
    array = np.arange(6.0)
    tensor = dlbridge.to_torch(array)
    out = (tensor * torch.ones(6, dtype=torch.float64, requires_grad=True)).sum()
    gone = weakref.ref(array)
    del tensor, array
    out.backward()  # the saved tensor dies on an autograd thread
    del out
    settle()
    assert gone() is None


def test_the_deleter_of_somebody_else_runs_once_whoever_ends_it(road: str) -> None:
    for end in ("with the GIL", "without", "in a Python thread"):
        capsule, token = make_f32()
        held = probe.hold(dlbridge.capsule(dlbridge.from_dlpack(capsule)))
        del capsule
        settle()
        assert probe.deletes(token) == 0
        if end == "with the GIL":
            held.release()
        elif end == "without":
            held.release_on_thread()
        else:
            thread = threading.Thread(target=held.release)
            thread.start()
            thread.join()
        held.release()  # nothing is left in it
        settle()
        assert probe.deletes(token) == 1, end


def test_a_stale_pointer_is_never_read(road: str) -> None:
    # The probe poisons memory when its deleter runs: a view that reads 0xDD outlived its memory.
    capsule, token = make_f32()
    array = dlbridge.to_numpy(capsule)
    window = array[2:4]
    tensor = dlbridge.to_torch(array)
    del array, capsule
    settle()
    assert probe.deletes(token) == 0
    assert window.tolist() == [2, 3] and tensor.tolist() == [0, 1, 2, 3, 4, 5]
    del window
    settle()
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]
    del tensor
    settle()
    assert probe.deletes(token) == 1


def test_a_foreign_deleter_is_given_the_gil_when_python_gives_the_last_blow() -> None:
    capsule, token = make_f32()
    array = dlbridge.to_numpy(capsule)
    del array, capsule
    settle()
    assert probe.last_deleter(token) == (1, threading.get_ident())


def test_a_copy_lets_go_of_its_source_at_once() -> None:
    capsule, token = make_f32(flags=READ_ONLY)
    copied = dlbridge.to_numpy(capsule, copy=True)
    settle()
    assert probe.deletes(token) == 1
    assert copied.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_lives_on_has_as_many_references_as_before(road: str) -> None:
    """A reference too few of them shows only after many crossings, and one too many never."""
    tensor, array = torch.ones(3, requires_grad=True), np.ones(3)
    masked = np.ma.masked_array([1.0], [True])
    shapeless = SimpleNamespace(__array_interface__={"shape": (3,), "version": 3})

    def refused(source: Any, **keywords: Any) -> None:
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(source, **keywords)

    doors: dict[str, Callable[[], Any]] = {
        "view": lambda: dlbridge.to_numpy(tensor),
        "back": lambda: dlbridge.to_torch(array),
        "tree": lambda: dlbridge.to_numpy({"a": [tensor, None]}),
        "explained": lambda: dlbridge.explain(tensor, "numpy"),
        "of no known shape": lambda: dlbridge.explain(shapeless, "numpy"),
        "refused with a fix": lambda: refused(tensor, policy="strict"),
        "refused without one": lambda: refused(torch.ones(3, device="meta")),
        "masked": lambda: refused(masked),
        "already there": lambda: asyncio.run(awaited(dlbridge.to_numpy(array, async_=True))),
        "mapped to None": lambda: dlbridge._core.map_tree([array], lambda leaf: None),
        "without a leaf": lambda: dlbridge._core.map_tree(array, lambda leaf: None),
    }

    async def awaited(pending: Any) -> Any:
        return await pending

    lasting = (None, tensor, array, masked, np.ma, np.ma.MaskedArray, np.ndarray, np.dtype("f8"))
    lasting += (torch, torch.Tensor, dlbridge.ManagedTensor, dlbridge.ConversionRefused)
    for name, cross in doors.items():
        for _ in range(3):
            cross()
        settle()
        before = [sys.getrefcount(each) for each in lasting]
        for _ in range(60):
            cross()
        settle()
        changes = [sys.getrefcount(each) - was for each, was in zip(lasting, before, strict=True)]
        assert all(abs(change) < 50 for change in changes), (name, changes)


def test_threads_that_convert_and_drop_at_once_end_with_nothing_alive(road: str) -> None:
    array = np.arange(1000.0)
    tensor = torch.arange(1000.0)
    tokens: list[int] = []
    failures: list[BaseException] = []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        try:
            start.wait()
            for i in range(300):
                view = dlbridge.to_torch(array)
                other = dlbridge.to_numpy(tensor)
                capsule = dlbridge.capsule(array if (i + seed) % 2 else tensor)
                held = probe.hold(capsule)
                (held.release_on_thread if i % 3 else held.release)()
                made, token = make_f32()
                tokens.append(token)
                assert dlbridge.to_numpy(made)[5] == 5
                assert view[-1] == other[-1] == 999
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    settle()
    assert {probe.deletes(token) for token in tokens} == {1}


def test_one_managed_tensor_is_exported_and_dropped_by_many_threads() -> None:
    capsule, token = make_f32()
    tensor = dlbridge.from_dlpack(capsule)

    def work(tensor: Any) -> None:
        for _ in range(500):
            held = probe.hold(tensor.__dlpack__(max_version=(1, 0)))
            held.release_on_thread()
            memoryview(tensor).release()

    threads = [threading.Thread(target=work, args=(tensor,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle()
    assert probe.deletes(token) == 0
    del tensor, capsule, threads, thread
    settle()
    assert probe.deletes(token) == 1


def test_exports_do_not_grow_the_queue_for_ever() -> None:
    # Thousands of releases without the GIL and no call between them, then one settles them all.
    array = np.arange(6.0)
    holds = [probe.hold(dlbridge.capsule(array)) for _ in range(5000)]
    for held in holds:
        held.release_on_thread()
    del holds, held
    settle()
    assert address(array)  # and nothing refers to it: NumPy lets it be resized
    array.resize(20)


def test_a_release_inside_a_collection_or_a_finalizer_is_safe(road: str) -> None:
    class Node:
        def __init__(self, view: Any) -> None:
            self.view = view
            self.me = self

        def __del__(self) -> None:
            dlbridge.to_numpy(torch.ones(2))  # converts while the collector runs

    producer = producer_f32()
    for _ in range(20):
        Node(dlbridge.to_numpy(producer))
        Node(dlbridge.to_torch(producer))
        Node(dlbridge.from_dlpack(producer))
        Node(dlbridge.capsule(producer))
    settle()
    settle()
    assert probe.deletes(producer.token) == probe.exports(producer.token)


# --- the end of the process -------------------------------------------------------------------

WHENS = ["static", "atexit", "py_atexit", "finalizing"]


@pytest.mark.parametrize("when", WHENS)
def test_deleters_are_safe_when_the_process_ends(road: str, when: str) -> None:
    out = run_child(
        SETUP
        + f"""
count = 0
for make in SOURCES:
    source = make()
    probe.drop_late(dlbridge.capsule(source), {when!r})
    copied = dlbridge.from_dlpack(source).__dlpack__(max_version=(1, 0), copy=True)
    probe.drop_late(copied, {when!r})
    count += 2
print(count, "to drop")
""",
        road=road,
        timeout=60,
    )
    count = int(out.split()[0])
    assert out.count("probe: dropped") == count


def test_views_that_live_to_the_end_do_no_harm(road: str) -> None:
    out = run_child(
        SETUP
        + """
import atexit, builtins
views = []
for make in SOURCES:
    source = make()
    views += [dlbridge.to_numpy(source), dlbridge.to_torch(source), dlbridge.from_dlpack(source)]
    views += [dlbridge.capsule(source), memoryview(dlbridge.from_dlpack(source))]
builtins.views = views           # outlives every module
sys.modules["kept"] = views
cycle = [views]; cycle.append(cycle)
atexit.register(lambda: views.append(dlbridge.to_numpy(torch.ones(3))))
threading.local().kept = dlbridge.to_numpy(torch.ones(3))
print("done")
""",
        road=road,
        timeout=60,
    )
    assert out.endswith("done\n")


def test_a_daemon_thread_that_converts_does_not_break_the_exit() -> None:
    # NumPy only: torch itself aborts when a daemon thread is inside it at the end.
    run_child(
        """
import threading, time
import numpy as np
import dlbridge
import dlbridge_probe as probe

def work():
    while True:
        array = np.arange(64.0)
        views = [dlbridge.from_dlpack(array), dlbridge.to_numpy(memoryview(array))]
        probe.hold(dlbridge.capsule(array)).release_on_thread()

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
""",
        timeout=60,
    )


@pytest.mark.parametrize("inside", ["a producer", "a property", "a refusal", "a finalizer"])
def test_a_daemon_thread_inside_a_crossing_does_not_break_the_exit(inside: str) -> None:
    # Before CPython 3.14 such a thread is unwound from where it next asks for the GIL.
    run_child(
        f"""
inside = {inside!r}
import threading, time
import numpy as np
import dlbridge

def busy():
    for _ in range(200):
        time.sleep(0)

class Made:
    def __dlpack__(self, **keywords):
        busy()
        return np.arange(4.0).__dlpack__(**keywords)
    def __dlpack_device__(self):
        return (1, 0)

class Interface:
    @property
    def __array_interface__(self):
        busy()
        return dict(np.arange(4.0).__array_interface__)

class Finalized(np.ndarray):
    def __del__(self):
        busy()

def work():
    while True:
        if inside == "a producer":
            dlbridge.to_numpy(Made())
        elif inside == "a property":
            dlbridge.to_numpy(Interface(), copy=True)
        elif inside == "a finalizer":
            held = dlbridge.from_dlpack(np.arange(4.0).view(Finalized))
            del held
        else:
            try:
                dlbridge.from_dlpack(np.array(["text"]))
            except dlbridge.ConversionRefused:
                pass

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""",
        timeout=60,
    )


def test_a_forked_child_can_convert_and_release(road: str) -> None:
    # With views of every kind alive, while other threads convert, and with copies large enough for
    # helper threads.
    run_child(
        SETUP
        + """
import os, warnings
warnings.simplefilter("ignore")
gc.freeze()
views = []
for make in SOURCES:
    source = make()
    views += [dlbridge.to_numpy(source), dlbridge.from_dlpack(source)]
    views.append(probe.hold(dlbridge.capsule(source)))
kept = dlbridge.to_numpy(torch.arange(5.0))
large = np.full(1 << 21, 3.0)
made = producer_f32()
over = dlbridge.to_numpy(made)
ends = False

def work():
    while not ends:
        view = dlbridge.to_torch(np.ones(8))
        probe.hold(dlbridge.capsule(view)).release_on_thread()
        dlbridge.to_numpy(large, copy=True)

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        assert dlbridge.to_numpy(large, copy=True).sum() == 3 * large.size
        assert dlbridge.to_numpy(torch.arange(5.0)).sum() == 10 and kept.sum() == 10
        for view in views:
            if hasattr(view, "release_on_thread"):
                view.release_on_thread()
        views.clear()
        del over, kept
        settle()
        assert probe.deletes(made.token) == 1
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert probe.deletes(made.token) == 0
ends = True
for thread in threads: thread.join()
assert kept.sum() == 10 and over[5] == 5
""",
        road=road,
    )
