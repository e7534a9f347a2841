"""Many items through one stream: bounded in flight, answered in order or as they are ready.

It knows neither messages nor models: `work` answers one item. Reading stops while `limit` items are
unanswered or unsent, which is what lets HTTP/2 flow control hold the caller back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from serving.types import StreamOrder

Q = TypeVar("Q")
A = TypeVar("A")


async def pipelined(
    items: AsyncIterator[Q],
    work: Callable[[Q], Awaitable[A]],
    *,
    limit: int,
    order: StreamOrder,
    stop: asyncio.Event,
) -> AsyncGenerator[tuple[Q, A], None]:
    """Yield each item with its answer; what is in flight is cancelled when the consumer leaves.

    When `stop` is set nothing more is read, and what was read is still answered. When `items` fails, what
    came before is answered first, then the failure is raised.
    """
    line: asyncio.Queue[asyncio.Task[tuple[Q, A]] | None] = asyncio.Queue()
    room = asyncio.Semaphore(limit)
    in_flight: set[asyncio.Task[tuple[Q, A]]] = set()

    async def answered(item: Q) -> tuple[Q, A]:
        return item, await work(item)

    async def read() -> None:
        try:
            async for item in items:
                await room.acquire()
                task = asyncio.create_task(answered(item))
                in_flight.add(task)
                if order is StreamOrder.AS_SENT:
                    line.put_nowait(task)
                else:
                    task.add_done_callback(line.put_nowait)
        finally:
            if order is StreamOrder.AS_COMPLETED and in_flight:
                await asyncio.wait(set(in_flight))  # their callbacks have run when this returns
            line.put_nowait(None)

    async def watch() -> None:
        await stop.wait()
        reader.cancel()

    reader = asyncio.create_task(read())
    watcher = asyncio.create_task(watch())
    try:
        while (task := await line.get()) is not None:
            pair = await task
            in_flight.discard(task)
            yield pair
            room.release()
        if not stop.is_set():
            await reader  # raises what reading raised
    finally:
        for pending in (reader, watcher, *in_flight):
            pending.cancel()
        await asyncio.gather(reader, watcher, *in_flight, return_exceptions=True)
