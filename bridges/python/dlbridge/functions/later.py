"""Answers that come later, of coroutines and generators."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

from dlbridge.trees import is_array

Change = Callable[[Any], Any]


def changed(answer: Any, change: Change) -> Any:
    """``change(answer)``; of a coroutine or a generator one that gives what its own values become.

    A future is an answer like others: whoever has it may want more of it than its value.
    """
    if is_array(answer):  # told in less time than what it is not
        return change(answer)
    if isinstance(answer, Coroutine):
        return _awaited(answer, change)
    if isinstance(answer, Generator):
        return _each(answer, change)
    if isinstance(answer, AsyncGenerator):
        return _each_awaited(answer, change)
    return change(answer)


async def _awaited(answer: Coroutine[Any, Any, Any], change: Change) -> Any:
    return change(await answer)


# As ``yield from``, of which nothing else lets the values be changed on their way.
def _each(answer: Generator[Any, Any, Any], change: Change) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = functools.partial(next, answer)
    while True:
        try:
            value = step()
        except StopIteration as ended:
            return change(ended.value)
        value = change(value)
        try:
            step = functools.partial(answer.send, (yield value))
        except GeneratorExit:
            answer.close()
            raise
        except BaseException as error:
            step = functools.partial(answer.throw, error)


async def _each_awaited(answer: AsyncGenerator[Any, Any], change: Change) -> Any:
    step: Callable[[], Any] = functools.partial(anext, answer)
    while True:
        try:
            value = await step()
        except StopAsyncIteration:
            return
        value = change(value)
        try:
            step = functools.partial(answer.asend, (yield value))
        except GeneratorExit:
            await answer.aclose()
            raise
        except BaseException as error:
            step = functools.partial(answer.athrow, error)
