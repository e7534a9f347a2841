"""What answers rows that cannot be classified, and how rows come out of an iterator that may block.

It knows rows and answers, and not who gives them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import grpc

from serving.calls import Failure
from serving.files.rows import Row

T = TypeVar("T")

BAD_ROW = "BAD_ROW"
AHEAD = 64


def refused(row: Row) -> Failure:
    """The answer to a row that has a problem."""
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, BAD_ROW, row.problem, field="text")


async def each(rows: Iterator[T]) -> AsyncIterator[T]:
    """From an iterator that never waits long, such as that of a file."""
    for row in rows:
        yield row


async def waited(rows: Iterator[T]) -> AsyncIterator[T]:
    """From an iterator that may wait for a person, such as that of a pipe; reads no further than `AHEAD`."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)

    def tell(entry: T | BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(line.put_nowait, entry)

    def read() -> None:
        try:
            for row in rows:
                room.acquire()
                tell(row)
            tell(None)
        except BaseException as error:  # it is raised where the rows are used
            tell(error)

    threading.Thread(target=read, name="read", daemon=True).start()
    while (entry := await line.get()) is not None:
        if isinstance(entry, BaseException):
            raise entry
        room.release()
        yield entry
