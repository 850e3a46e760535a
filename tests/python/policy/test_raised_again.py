"""A refusal that another process or thread raises again: its class, its words and its fix."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

import dlbridge


def sparse_in_a_tree() -> Any:
    return dlbridge.to_numpy({"a": [torch.eye(2).to_sparse()]})


def borrowed() -> Any:
    with dlbridge.borrow(torch.ones(2, requires_grad=True)):
        pass


def without_copy() -> Any:
    return dlbridge.to_torch(np.ones(2)[::-1], copy=False)


def without_a_fix() -> Any:
    return dlbridge.to_torch(np.zeros(1, "V8"))


def of_a_message() -> Any:
    raise dlbridge.ConversionRefused("there are no rows")


CASES: dict[str, Callable[[], Any]] = {
    "sparse, in a tree": sparse_in_a_tree,
    "borrow": borrowed,
    "a copy forbidden": without_copy,
    "without a fix": without_a_fix,
    "of a message": of_a_message,
}


def refusal(name: str) -> dlbridge.ConversionRefused:
    with pytest.raises(dlbridge.ConversionRefused) as caught:
        CASES[name]()
    return caught.value


def said(error: dlbridge.ConversionRefused) -> Any:
    return type(error), str(error), error.reasons, error.fix, error.plan


@pytest.mark.parametrize("name", CASES)
def test_a_copy_says_all_that_the_refusal_says(name: str) -> None:
    error = refusal(name)
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [pickle.loads(pickle.dumps(error, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)]
    for each in copies:
        assert said(each) == said(error)
        assert getattr(each, "__notes__", None) == getattr(error, "__notes__", None)


@pytest.mark.parametrize("name", CASES)
def test_torch_raises_it_again_from_its_text(name: str) -> None:
    error = refusal(name)
    try:
        raise error
    except dlbridge.ConversionRefused:
        wrapper = pickle.loads(pickle.dumps(ExceptionWrapper(sys.exc_info(), where="in a worker")))
    with pytest.raises(type(error)) as caught:
        wrapper.reraise()
    again = caught.value
    assert again.fix == again.plan.fix == error.fix and again.plan.refused
    assert str(error) in str(again)
    assert again.reasons == (str(error).partition("; use ")[0],)


@pytest.mark.parametrize("text", ["Caught cold", "Caught in: there are no rows", "Caught; use x"])
def test_a_message_that_is_no_traceback_is_the_reason(text: str) -> None:
    error = dlbridge.ConversionRefused(text)
    assert error.reasons == (text,) and error.fix is None


class Refusing(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return sparse_in_a_tree()


def test_a_dataloaders_worker_hands_on_the_refusal() -> None:
    for workers in (0, 1):
        with pytest.raises(dlbridge.ConversionRefused) as caught:
            list(
                DataLoader(
                    Refusing(),
                    num_workers=workers,
                    collate_fn=list,
                    multiprocessing_context="spawn" if workers else None,
                )
            )
        assert caught.value.fix == refusal("sparse, in a tree").fix


def test_pools_hand_on_the_refusal() -> None:
    spawned = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawned) as processes,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        for pool in (processes, threads):
            with pytest.raises(dlbridge.ConversionRefused) as caught:
                pool.submit(sparse_in_a_tree).result()
            assert said(caught.value) == said(refusal("sparse, in a tree"))
