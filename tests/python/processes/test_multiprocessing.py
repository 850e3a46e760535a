"""Shared in multiprocessing: queues, pipes, pools and arguments, under every start method."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from dlb_support import run_child

import dlbridge

METHODS = ("fork", "spawn", "forkserver")
# What starts a new interpreter imports torch: a few seconds each.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture(autouse=True)
def _no_block_is_left() -> Iterator[None]:
    yield
    dlbridge.release_pool()


def doubled(x: dlbridge.Shared) -> dlbridge.Shared:
    return dlbridge.share(dlbridge.to_numpy(x)["x"] * 2, mode="give")


def answer(queue: Any, pipe: Any, given: dlbridge.Shared) -> None:
    queue.put(doubled(given))
    pipe.send([dlbridge.share(torch.arange(3)), pipe.recv().mode])


@pytest.mark.parametrize("method", METHODS)
def test_arguments_queues_pipes_and_pools(method: str) -> None:
    run_child(
        dedent(f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import multiprocessing as mp, numpy as np
        from concurrent.futures import ProcessPoolExecutor
        import dlbridge
        from test_multiprocessing import answer, doubled

        context = mp.get_context({method!r})
        x = dlbridge.share({{"x": np.arange(3)}})
        queue, (here, there) = context.Queue(), context.Pipe()
        child = context.Process(target=answer, args=(queue, there, x))
        child.start()
        here.send(dlbridge.share(np.zeros(2), mode="write"))
        got, mode = here.recv()
        assert dlbridge.to_torch(got).tolist() == [0, 1, 2] and mode == "write"
        assert dlbridge.to_torch(queue.get()).tolist() == [0, 2, 4]
        child.join()
        assert child.exitcode == 0
        many = [dlbridge.share({{"x": np.arange(3) + i}}) for i in range(6)]
        want = [[2 * i, 2 * i + 2, 2 * i + 4] for i in range(6)]
        with context.Pool(1) as pool:
            assert [dlbridge.to_numpy(y).tolist() for y in pool.map(doubled, many)] == want
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            assert [dlbridge.to_numpy(y).tolist() for y in pool.map(doubled, many)] == want
        """)
    )


def test_joblib_takes_it_and_gives_it_back() -> None:
    pytest.importorskip("joblib")
    run_child(
        dedent(f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import joblib, numpy as np, pickle, pytest
        import dlbridge
        from test_multiprocessing import doubled

        parts = [dlbridge.share({{"x": np.arange(3) + i}}) for i in range(3)]
        with dlbridge.no_copies():
            sent = joblib.Parallel(n_jobs=2)(joblib.delayed(doubled)(part) for part in parts)
            made = [dlbridge.to_numpy(each).tolist() for each in sent]
        assert made == [[0, 2, 4], [2, 4, 6], [4, 6, 8]]
        echo = joblib.Parallel(n_jobs=2)(joblib.delayed(list)([part]) for part in parts)
        assert [dlbridge.to_numpy(each)["x"][0] for (each,) in echo] == [0, 1, 2]
        with pytest.raises(TypeError, match="no data of its own"):
            pickle.dumps(parts[0])  # plain pickle knows it as little as before
        """)
    )


CHILD = """
import multiprocessing as mp, os, signal, time
import numpy as np, pytest, dlbridge

def put_and_end(queue):
    queue.put(dlbridge.share(np.arange(5)))

context = mp.get_context("fork")
"""


def test_a_child_that_is_done_waits_for_its_reader() -> None:
    run_child(
        CHILD
        + dedent("""
        queue = context.Queue()
        child = context.Process(target=put_and_end, args=(queue,))
        child.start()
        time.sleep(0.3)
        assert child.is_alive()
        assert dlbridge.to_numpy(queue.get()).tolist() == [0, 1, 2, 3, 4]
        child.join(5)
        assert child.exitcode == 0
        """)
    )


def test_a_child_that_was_killed_is_an_error_with_words() -> None:
    run_child(
        CHILD
        + dedent("""
        queue = context.SimpleQueue()
        child = context.Process(target=put_and_end, args=(queue,))
        child.start()
        while queue.empty():
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with pytest.raises(ConnectionError, match="has ended"):
            queue.get()
        """)
    )


def test_nothing_else_of_pickle_has_changed() -> None:
    from multiprocessing.reduction import ForkingPickler

    ours = [kind for kind in ForkingPickler._extra_reducers if "dlbridge" in kind.__module__]
    assert set(ours) <= {dlbridge.Shared}


def test_memory_that_was_read_is_lent_again() -> None:
    from dlbridge.processes.addresses import lending

    here, there = mp.Pipe()
    before = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        here.send(dlbridge.share(np.full(3, i)))
        assert dlbridge.to_numpy(there.recv()).tolist() == [i] * 3
    lending.begin()
    dlbridge.release_pool()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the pipe for answers
    here.close()
    there.close()


def test_an_address_of_another_process_by_now_is_not_touched(tmp_path: Any) -> None:
    from dlbridge.processes.addresses import Address, _File, fetched, lending

    place = tmp_path / "file"
    place.write_bytes(b"important")
    with place.open("r+b") as victim:
        address = lending.lend([os.dup(victim.fileno())])
        for wrong in (
            address._replace(files=(_File(victim.fileno(), 1, 2),)),
            address._replace(answers=_File(victim.fileno(), 1, 2)),
            address._replace(process=1 << 22),
        ):
            with pytest.raises(ConnectionError):
                fetched(Address(*wrong), write=True)
    assert place.read_bytes() == b"important"
    lending._lent.clear()


def test_a_reader_does_not_wait_for_a_lender_that_does_not_listen() -> None:
    from dlbridge.processes.addresses import fetched, lending

    reading, writing = os.pipe()
    shared = dlbridge.share(np.zeros(3))
    _, descriptors = dlbridge._core.pack_shared(shared._tensors, "read", b"")
    address = lending.lend(descriptors)
    for _ in range(9000):
        for descriptor in fetched(address, write=False):
            os.close(descriptor)
    lending.begin()
    assert not lending._lent
    os.close(reading)
    os.close(writing)


def test_a_large_tensor_is_not_copied_on_its_way() -> None:
    run_child(
        dedent("""
        import multiprocessing as mp, time
        import numpy as np, dlbridge
        big = dlbridge.shared_empty(1 << 26)
        dlbridge.to_numpy(big)[::4096] = 1
        here, there = mp.Pipe()
        with dlbridge.no_copies():
            here.send(dlbridge.share(big))
            got = dlbridge.to_numpy(there.recv())
        assert got[::4096].all() and got.nbytes == 1 << 28
        """)
    )


class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> Any:
        image = np.full((4, 5), i, np.float32)
        text = np.array([f"t{i}"])[0]
        return {
            "image": image,
            "t": torch.tensor([i]),
            "label": i,
            "name": f"n{i}",
            "w": i / 2,
            "text": text,
            "none": None,
        }


LOADER = f"""
import sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch
from torch.utils.data import DataLoader, default_collate
from dlbridge.engines.loader import collate
from test_multiprocessing import Images
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_batches_are_plain_tensors(workers: int) -> None:
    run_child(
        LOADER
        + dedent(f"""
        def batches(how):
            return list(DataLoader(Images(), 5, num_workers={workers}, collate_fn=how))

        def without(samples):
            return default_collate([dict(each, none=0) for each in samples])

        ours = batches(collate)
        assert collate(["a", "b"]) == ["a", "b"] and collate([None]) == [None]
        for mine, theirs in zip(ours, batches(without), strict=True):
            assert mine["name"] == theirs["name"] and mine["none"] == [None] * len(mine["name"])
            assert mine["text"] == [text.replace("n", "t") for text in mine["name"]]
            for key in ("image", "t", "label", "w"):
                assert type(mine[key]) is torch.Tensor and mine[key].dtype == theirs[key].dtype
                assert torch.equal(mine[key], theirs[key]), key
        ours[0]["image"] += 1  # it is the trainer's own
        assert ours[1]["image"][0, 0, 0] == 5
        """)
    )


def test_a_loader_that_is_left_early_ends_at_once() -> None:
    run_child(
        LOADER
        + dedent("""
        loader = iter(DataLoader(Images(), 1, num_workers=1, collate_fn=collate))
        next(loader)
        begun = time.monotonic()
        del loader
        assert time.monotonic() - begun < 4.5
        """)
    )


def test_engines_are_met_when_they_are_asked_for() -> None:
    assert dlbridge.engines.loader.collate is not None
    with pytest.raises(AttributeError):
        _ = dlbridge.engines.nothing


def test_samples_that_are_not_alike_are_named() -> None:
    from dlbridge.engines.loader import collate

    with pytest.raises(ValueError, match="sample 1 has float64 of shape \\(3,\\)"):
        collate([np.zeros(2), np.zeros(3)])
    with pytest.raises(ValueError, match="same number of parts"):
        collate([(1, 2), (1,)])
