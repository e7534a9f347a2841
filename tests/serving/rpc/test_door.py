"""Calls of the last moment: held until the server takes no more, then told to go elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from protos.stratified.v1 import sentiment_pb2
from serving.errors import Draining
from serving.rpc import door as module
from serving.rpc.door import Door
from tests.serving.conftest import Start


class Stopping:
    """What the door asks of a server; its calls end when told."""

    def __init__(self) -> None:
        self.graces: list[float] = []
        self.answered = asyncio.Event()

    async def stop(self, grace: float) -> None:
        self.graces.append(grace)
        await self.answered.wait()


def close(door: Door, server: Stopping, grace: float = 10, *, leaving: bool = False) -> asyncio.Task[bool]:
    return asyncio.create_task(door.close(cast("grpc.aio.Server", server), grace, leaving=leaving))


async def told(door: Door, remaining: float | None = None) -> Draining:
    with pytest.raises(Draining) as caught:
        async with door.passage(remaining):
            pass
    return caught.value


@asynccontextmanager
async def answered(door: Door) -> AsyncIterator[None]:
    """Somebody was let in before, and is answered until the end of the block."""
    done = asyncio.Event()

    async def call() -> None:
        async with door.passage(None):
            await done.wait()

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    yield
    done.set()
    await calling


async def test_an_open_door_lets_everybody_in() -> None:
    door, entered = Door(), []
    for remaining in (None, 0.0):
        async with door.passage(remaining):
            entered.append(remaining)
    assert entered == [None, 0.0]


async def test_who_comes_while_it_closes_is_told_once_the_server_takes_no_more() -> None:
    door, server = Door(), Stopping()
    closing = close(door, server)
    await asyncio.sleep(0)
    late = asyncio.create_task(told(door))
    await asyncio.sleep(module.QUIET / 4)
    assert not server.graces
    assert not late.done()
    assert (await late).retry_after == 0.25
    assert server.graces  # it had begun before anybody was told
    assert not closing.done()  # what it let in is still being answered
    server.answered.set()
    await closing
    await told(door)


async def test_who_was_let_in_is_waited_for_and_who_is_held_is_not() -> None:
    door, server = Door(), Stopping()
    async with answered(door):
        holding = close(door, server, leaving=True)
        await asyncio.sleep(0)
        late = asyncio.create_task(told(door))
        await asyncio.sleep(2 * module.QUIET)
        assert not holding.done()
    assert await holding
    assert not server.graces
    assert not late.done()
    leaving = asyncio.create_task(door.leave())
    await late
    assert not leaving.done(), "what it was told is on its way"
    await leaving


async def test_who_is_never_done_keeps_it_open_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.05)
    door, server = Door(), Stopping()
    server.answered.set()
    async with answered(door):
        assert not await close(door, server, leaving=True)
    assert 9 < server.graces[0] < 10


async def test_a_caller_in_a_hurry_keeps_half_of_its_time() -> None:
    door, server, loop = Door(), Stopping(), asyncio.get_running_loop()
    closing = close(door, server)
    await asyncio.sleep(0)
    begun = loop.time()
    await told(door, remaining=0.04)
    assert loop.time() - begun >= 0.02
    assert not server.graces
    await told(door, remaining=-1.0)  # too late already
    server.answered.set()
    await closing


async def test_callers_who_never_pause_keep_it_open_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.3)
    door, server = Door(), Stopping()
    closing, callers = close(door, server), []
    while not server.graces:
        callers.append(asyncio.create_task(told(door)))
        await asyncio.sleep(0.001)
    assert len(callers) > 20
    assert 9 < server.graces[0] < 9.9  # the time that it took is taken from the grace
    assert {error.reason for error in await asyncio.gather(*callers)} == {"DRAINING"}
    server.answered.set()
    await closing


async def test_without_grace_nobody_is_waited_for() -> None:
    door, server = Door(), Stopping()
    server.answered.set()
    async with answered(door):
        await close(door, server, grace=0)
    assert server.graces == [0]


async def test_a_stock_client_that_comes_last_is_unavailable_with_a_pushback(start: Start) -> None:
    running = await start()
    stopping = asyncio.create_task(running.app.stop(settle=0))
    await asyncio.sleep(0.02)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="a"))
    trailers: dict[str, Any] = dict(caught.value.trailing_metadata() or ())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert trailers["grpc-retry-pushback-ms"] == "250"
    await stopping
