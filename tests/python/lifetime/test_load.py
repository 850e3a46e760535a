"""Load: a million crossings with a flat memory, 100,000 views at once, 10 GB tensors, no memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dlb_support import run_child, run_python

STEADY = Path(__file__).parents[2] / "load" / "steady.py"
asan = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer keeps freed memory, and an address space of its own",
)
roads = pytest.mark.parametrize("road", ["linked", "portable"])


@asan
def test_a_million_crossings_leave_nothing_behind() -> None:
    out = run_python(str(STEADY), "--crossings", "1000000", timeout=280)
    assert "LEAKS" not in out


@asan
def test_a_leak_would_show() -> None:
    with pytest.raises(AssertionError, match=r"leaking .* LEAKS"):
        run_python(str(STEADY), "--crossings", "100000", "--leak", timeout=280)


VIEWS = """
import gc, random, threading
import numpy as np
from dlb_support import live, settle

COUNT = 100_000
settle()
gc.freeze()
before = live()
one, array = torch.arange(8.0), np.arange(8.0)

def kinds():
    yield "one tensor", lambda i: dlbridge.to_numpy(one), lambda v: v[3] == 3
    yield "own tensors", lambda i: dlbridge.to_numpy(torch.full((2,), float(i))), None
    yield "one array", lambda i: dlbridge.to_torch(array), lambda v: v[3] == 3
    yield "own arrays", lambda i: dlbridge.to_torch(np.full(2, float(i))), None
    yield "managed", lambda i: dlbridge.from_dlpack(one), lambda v: v.shape == (8,)
    yield "capsules", lambda i: dlbridge.capsule(array), lambda v: True

for name, make, right in kinds():
    views = [make(i) for i in range(COUNT)]
    assert live() - before == COUNT, (name, live() - before)
    order = list(range(COUNT))
    random.Random(0).shuffle(order)
    for i in order[: COUNT // 2]:
        views[i] = None
    assert live() - before == COUNT - COUNT // 2, name
    for i in order[COUNT // 2 :: 1000]:
        assert right(views[i]) if right is not None else views[i][1] == i, (name, i)
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    settle()
    assert live() == before, (name, live() - before)
    print(name)
one.resize_(8)
one.add_(1)
"""


@roads
def test_a_hundred_thousand_views_are_alive_at_once(road: str) -> None:
    assert len(run_child(VIEWS, road=road, timeout=250).splitlines()) == 6


LARGE = """
import mmap
import numpy as np
from dlb_support import live, settle

GIGABYTES = 10
SIZE = GIGABYTES * 10**9
settle()
before = live()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE

# Reserved only: a page is there once it is written to.
memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # NORESERVE
array = np.frombuffer(memory, dtype="u1")
array[-1] = 7
tensor = torch.from_numpy(array)
wide = tensor.view(torch.float32)  # its last element is beyond 2 ** 31
wide[-1] = 2.5
at_start = resident()

view = dlbridge.to_numpy(tensor)
assert view.nbytes == SIZE and view.ctypes.data == tensor.data_ptr() and view[-2] == 0x20
view[-2] = 0x40
assert wide[-1] == 3.0
again = dlbridge.to_torch(dlbridge.to_numpy(wide))
assert again.numel() == SIZE // 4 and again[-1] == 3.0 and again.data_ptr() == wide.data_ptr()
managed = dlbridge.from_dlpack(wide)
assert managed.nbytes == SIZE and dlbridge.to_numpy(managed)[-1] == 3.0
table = wide.view(-1, 50_000).T  # strides and steps beyond 32 bits
assert dlbridge.to_numpy(table)[-1, -1] == 3.0
assert dlbridge.from_dlpack(table).strides == (1, 50_000)
every = tensor[:: 2**31 + 1]
assert dlbridge.to_numpy(every).strides == (2**31 + 1,)
assert dlbridge.from_dlpack(every).shape == (5,)
assert torch.from_dlpack(managed).data_ptr() == wide.data_ptr()
assert len(memoryview(managed).cast("B")) == SIZE
# What a copy would cost is said, not spent.
backwards = dlbridge.to_numpy(tensor)[::-1]
assert dlbridge.explain(backwards, "torch").bytes_copied == SIZE
for refused in (dict(copy=False), dict(policy="strict")):
    try:
        dlbridge.to_torch(backwards, **refused)
    except dlbridge.ConversionRefused:
        pass
    else:
        raise AssertionError(refused)
# A part is copied as a part.
part = dlbridge.to_torch(backwards[:10])
assert part.numel() == 10 and part[0] == array[-1]
assert resident() - at_start < 64 << 20, resident() - at_start
del view, again, managed, table, every, backwards, part
settle()
assert live() == before
print("viewed")
"""


@asan
@roads
def test_tensors_of_ten_gigabytes_are_viewed(road: str) -> None:
    assert run_child(LARGE, road=road).split() == ["viewed"]


NO_MEMORY = """
import gc, mmap, resource
import numpy as np
from dlb_support import live, settle

MIB = 1 << 20
SIZE = 72 * MIB  # more than one of malloc's arenas, whose address space is taken beforehand

EXTRAS = (0, 70, 77, 140, 152, 300)

def under(extra, work):
    '''What the work gives while the process may grow by so many bytes, or its error.'''
    now = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))
    try:
        return work()
    except Exception as error:
        return error.with_traceback(None)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

tensor = torch.arange(SIZE // 4, dtype=torch.int32)
array = tensor.numpy().copy()
pending = torch.full((SIZE // 8,), 1 + 1j).conj()  # no smaller memory on the way
tree = {"a": tensor, "b": [array, tensor]}
CALLS = {
    "to_numpy copy": lambda: dlbridge.to_numpy(tensor, copy=True),
    "to_torch copy": lambda: dlbridge.to_torch(array, copy=True),
    "from_dlpack copy": lambda: dlbridge.from_dlpack(array, copy=True),
    "backwards": lambda: dlbridge.to_torch(array[::-1]),
    "transposed": lambda: dlbridge.from_dlpack(tensor.view(-1, 1024).T, copy=True),
    "cast": lambda: dlbridge.to_numpy(tensor, dtype="float64"),
    "pending bit": lambda: dlbridge.to_numpy(pending),
    "tree": lambda: dlbridge.to_numpy(tree, copy=True),
    "export": lambda: dlbridge.from_dlpack(array).__dlpack__(copy=True),
}
for work in CALLS.values():
    small = work()  # every import and cache is there
del small
settle()
gc.freeze()
before = live()
dlbridge.pool_limit(0)  # or memory of ended copies would do
for name, work in CALLS.items():
    failed = 0
    for extra in EXTRAS:
        result = under(extra * MIB, work)
        if isinstance(result, Exception):
            assert type(result) is MemoryError, (name, extra, repr(result))
            failed += 1
        del result
        settle()
        assert live() == before, (name, extra, live() - before)
        assert tensor[-1] == SIZE // 4 - 1 and array[-1] == SIZE // 4 - 1 and pending[0].imag == -1
    assert 0 < failed < len(EXTRAS), (name, failed)
    assert not isinstance(work(), Exception)
    print(name, "failed", failed)
tensor.resize_(4)
assert np.array_equal(array, np.arange(SIZE // 4, dtype="i4"))
"""


@asan
@roads
def test_a_copy_without_memory_is_a_memory_error(road: str) -> None:
    assert len(run_child(NO_MEMORY, road=road, timeout=280).splitlines()) == 9


FIRST = """
import mmap, resource
import numpy as np
import dlbridge

torch_there = {torch_there}
if torch_there:
    import torch
    x = torch.arange(6.0)
else:
    x = np.arange(6.0)
now = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
failed = 0
for extra in (0, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22):
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))
    try:
        dlbridge.to_numpy(x)
        dlbridge.from_dlpack(x, copy=True)
        dlbridge.explain(x, "numpy")
    except (MemoryError, ImportError, SyntaxError):
        failed += 1  # CPython's parser takes the end of memory for an error in what it reads
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert dlbridge.to_numpy(x).tolist() == [0, 1, 2, 3, 4, 5]
assert dlbridge.from_dlpack(x, copy=True).shape == (6,)
assert not dlbridge.explain(x, "numpy").refused
print("crossed")
"""


@asan
@pytest.mark.parametrize("torch_there", [True, False])
def test_a_first_crossing_without_memory_can_be_tried_again(torch_there: bool) -> None:
    assert run_child(FIRST.format(torch_there=torch_there)).split() == ["crossed"]
