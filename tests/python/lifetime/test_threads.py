"""Many threads at once, from the very first crossing on."""

from __future__ import annotations

import pytest
import torch
from dlb_support import run_child

SIXTEEN_THREADS = """
import gc, sys, threading
import numpy as np, torch, dlbridge
try:
    dlbridge._core.torch_road({road!r})
except RuntimeError:
    print("skipped"); sys.exit()
a, t, errors = np.arange(1000.0), torch.arange(1000.0), []
before = sys.getrefcount(a)

def cross():
    try:
        for _ in range(500):
            over_array, over_tensor = dlbridge.to_torch(a), dlbridge.to_numpy(t)
            assert dlbridge.to_numpy(over_array)[5] == 5
            assert dlbridge.from_dlpack(over_tensor).shape == (1000,)
            assert dlbridge.to_numpy(torch.ones(2).bfloat16()).dtype.name == "bfloat16"
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=cross) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
del thread, threads
gc.collect()
assert not errors, errors
assert dlbridge._core.live_managed_tensors() == 0
assert sys.getrefcount(a) == before
print("crossed")
"""

# Every byte that is shared is 7.0 for ever, whoever writes; freed memory is soon something else.
# Changing a tensor's shape or storage while another thread reads those is a race of torch's own, so
# one thread at a time does either. Views are read and dropped meanwhile.
MUTATING_THREADS = """
import contextlib, gc, random, sys, threading
import numpy as np, torch, dlbridge
import dlbridge_probe as probe
from dlb_support import live, settle, make_f32
try:
    dlbridge._core.torch_road({road!r})
except RuntimeError:
    print("skipped"); sys.exit()
torch.set_num_threads(1)
sys.setswitchinterval(1e-5)

def new_array(): return np.full((4, 6), 7.0)
def new_tensor(): return torch.full((4, 6), 7.0, dtype=torch.float64)
def new_managed(): return dlbridge.from_dlpack(new_array())
def new_producer():
    class One:
        def __init__(self): self.array = new_array()
        def __dlpack__(self, **keywords): return self.array.__dlpack__(**keywords)
        def __dlpack_device__(self): return (1, 0)
    return One()

MAKERS = [new_array, new_tensor, new_managed, new_producer]
settle()
before = live()
shelf = [make() for make in MAKERS * 4]
alone, anybody = threading.Lock(), contextlib.nullcontext()
errors, counts, start = [], dict(views=0, refused=0), threading.Barrier(16)

def fill(tensor):
    if tensor.untyped_storage().nbytes() >= 8 * tensor.numel():  # torch itself does not ask
        tensor.fill_(7.0)

# Of shared memory without a view: torch 2.15 has no allocator for it, and crashes.
def resize(tensor, *shape):
    if not tensor.is_shared():
        fill(tensor.resize_(*shape))

def free(storage):
    if not storage.is_shared():
        storage.resize_(0)

def mutate(chance, source):
    if isinstance(source, np.ndarray):
        source[chance.randrange(4)] = 7.0
    elif isinstance(source, torch.Tensor):
        change = chance.choice([
            lambda: fill(source), lambda: source.t_(), lambda: source.unsqueeze_(0),
            lambda: source.squeeze_(), lambda: source.set_(new_tensor()),
            lambda: setattr(source, "data", new_tensor()), lambda: resize(source, 8, 8),
            lambda: source.share_memory_(), lambda: free(source.untyped_storage())])
        try:
            change()
        except RuntimeError:
            pass  # torch refuses: a view holds it

def look(view):
    array = view if isinstance(view, np.ndarray) else dlbridge.to_numpy(view)
    copied = array.copy()
    assert copied.size and (copied == 7.0).all(), copied

def work(seed):
    chance = random.Random(seed)
    kept = []
    try:
        start.wait()
        for _ in range({rounds}):
            place = chance.randrange(len(shelf))
            source = shelf[place]
            action = chance.randrange(8)
            turn = alone if isinstance(source, torch.Tensor) else anybody
            try:
                if action < 3:
                    cross = chance.choice([dlbridge.to_numpy, dlbridge.to_torch,
                                           dlbridge.from_dlpack])
                    with turn:
                        view = cross(source)
                    if view is not source:  # what was crossed to its own library changes with it
                        kept.append(view)
                        look(view)
                        counts["views"] += 1
                elif action == 3:
                    with turn:
                        held = probe.hold(dlbridge.capsule(source))
                    chance.choice([held.release, held.release_on_thread])()
                elif action == 4 and kept:
                    kept.pop(chance.randrange(len(kept)))
                elif action == 5:
                    with turn:
                        mutate(chance, source)
                elif action == 6:
                    shelf[place] = chance.choice(MAKERS)()
                else:
                    np.full(24, -1.0), torch.full((24,), -1.0, dtype=torch.float64)
            except dlbridge.ConversionRefused:
                counts["refused"] += 1  # freed, or resized to more than there is
            if len(kept) > 20:
                del kept[:10]
            for view in kept[-2:]:
                if not isinstance(view, torch.Tensor):
                    look(view)
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        kept.clear()

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
assert counts["views"] > 500, counts
del thread, threads
shelf.clear()
settle()
assert live() == before, live() - before
print("crossed")
"""


# All of them make the first view of a storage, which is when it is guarded.
FIRST_VIEWS = """
import sys, threading
import torch, dlbridge
dlbridge._core.torch_road("portable")
sys.setswitchinterval(1e-6)
threads, rounds = 8, 200
tensors = [torch.zeros(3) for _ in range(rounds)]
views, errors = [[] for _ in range(rounds)], []
together = threading.Barrier(threads)

def work():
    try:
        for tensor, seen in zip(tensors, views):
            together.wait()
            seen.append(dlbridge.to_numpy(tensor))
    except BaseException as error:
        errors.append(error)

workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert not errors, errors
counted = [tensor.untyped_storage()._dlbridge_views.count for tensor in tensors]
assert counted == [threads] * rounds, counted
print("counted")
"""


def test_threads_that_make_the_first_view_together_are_all_counted() -> None:
    assert run_child(FIRST_VIEWS).split() == ["counted"]


def test_a_storage_that_two_threads_guard_is_kept_by_the_first() -> None:
    from dlbridge._torch import storages

    storage = torch.ones(3).untyped_storage()
    if not hasattr(storage, "_swap_data_ptr_"):
        pytest.skip("this torch does not let storages swap their memory")
    storages.guard(storage)
    owner = storage._dlbridge_memory  # it would end the memory
    storages.guard(storage)
    assert storage._dlbridge_memory is owner


@pytest.mark.parametrize("road", ["linked", "portable"])
def test_sixteen_threads_cross_the_same_sources(road: str) -> None:
    out = run_child(SIXTEEN_THREADS.format(road=road)).split()
    if out == ["skipped"]:
        pytest.skip("there is no companion extension")
    assert out == ["crossed"]


@pytest.mark.parametrize("road", ["linked", "portable"])
def test_sixteen_threads_cross_drop_and_mutate_the_same_sources(road: str) -> None:
    out = run_child(MUTATING_THREADS.format(road=road, rounds=300)).split()
    if out == ["skipped"]:
        pytest.skip("there is no companion extension")
    assert out == ["crossed"]
