"""Pipelining: bounded, ordered or not, and tidy when it ends early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serving.streams import pipelined
from serving.types import StreamOrder

BOTH = pytest.mark.parametrize("order", list(StreamOrder))


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def later(number: int) -> int:
    await asyncio.sleep(0.02 if number % 3 == 0 else 0.001)
    return number * 10


@BOTH
async def test_every_item_gets_its_own_answer(order: StreamOrder) -> None:
    stop = asyncio.Event()
    pairs = [pair async for pair in pipelined(numbers(30), later, limit=5, order=order, stop=stop)]
    assert sorted(pairs) == [(number, number * 10) for number in range(30)]
    assert (pairs == sorted(pairs)) is (order is StreamOrder.AS_SENT)


@BOTH
async def test_no_more_than_the_limit_is_read_ahead_of_the_consumer(order: StreamOrder) -> None:
    read = 0

    async def counted() -> AsyncIterator[int]:
        nonlocal read
        async for number in numbers(50):
            read += 1
            yield number

    seen = 0
    async for _ in pipelined(counted(), later, limit=4, order=order, stop=asyncio.Event()):
        seen += 1
        await asyncio.sleep(0.001)
        assert read <= seen + 4 + 1  # one more is held by the reader, waiting for room
    assert seen == 50


@BOTH
async def test_a_failing_source_is_raised_after_what_came_before_was_answered(order: StreamOrder) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise RuntimeError("no more")

    seen: list[tuple[int, int]] = []

    async def collect() -> None:
        async for pair in pipelined(broken(), later, limit=5, order=order, stop=asyncio.Event()):
            seen.append(pair)

    with pytest.raises(RuntimeError, match="no more"):
        await collect()
    assert sorted(seen) == [(1, 10), (2, 20)]


@BOTH
async def test_failing_work_is_raised(order: StreamOrder) -> None:
    async def fail(number: int) -> int:
        raise RuntimeError(f"no {number}")

    with pytest.raises(RuntimeError, match="no 0"):
        await anext(aiter(pipelined(numbers(3), fail, limit=1, order=order, stop=asyncio.Event())))


@BOTH
async def test_stop_ends_the_reading_and_answers_what_was_read(order: StreamOrder) -> None:
    stop = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.Event().wait()

    seen = []
    async for pair in pipelined(endless(), later, limit=5, order=order, stop=stop):
        seen.append(pair)
        if len(seen) == 2:
            stop.set()
    assert sorted(seen) == [(1, 10), (2, 20)]


async def test_a_consumer_that_leaves_cancels_what_is_in_flight() -> None:
    cancelled = 0

    async def slow(number: int) -> int:
        nonlocal cancelled
        try:
            await asyncio.sleep(0 if number == 0 else 60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return number

    stream = pipelined(numbers(4), slow, limit=4, order=StreamOrder.AS_SENT, stop=asyncio.Event())
    async for _ in stream:
        break
    await stream.aclose()
    assert cancelled == 3
