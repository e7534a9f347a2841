"""One stream over many connections: every item answered once, or given up with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any, cast

import grpc
import pytest

from serving.calls import Answer, CallFailed, Failure
from serving.client import AsyncClient
from serving.engines.fake import fake_card
from serving.interpret import interpret
from serving.steady import MOST, SteadyStream
from serving.types import Classification, Encoded, EngineOutput, Item, Options
from tests.serving.conftest import Start
from tests.serving.test_lane import until

GONE = Failure(grpc.StatusCode.UNAVAILABLE, "", "the connection broke", retry_after=0.0)
Script = Callable[[int, Item], Answer | None]


def answer() -> Classification:
    output = EngineOutput((1.0, 0.0, 0.0), (1.0, 0.0), 0.0)
    encoded = Encoded((1,), ("a",), ((0, 1),), (True,), 1)
    return interpret(fake_card(), named="", encoded=encoded, output=output, options=Options())


class Scripted:
    """A client whose n-th stream does with each item what `script` says; None breaks the stream."""

    def __init__(self, script: Script, *, silent: bool = False) -> None:
        self.script, self.silent, self.streams, self.sent = script, silent, 0, list[str]()

    async def classify_stream(
        self, items: AsyncIterable[Item], **how: Any
    ) -> AsyncGenerator[tuple[str, Answer], None]:
        self.streams += 1
        stream = self.streams
        async for item in items:
            self.sent.append(item.text)
            if self.silent:
                await asyncio.Event().wait()
            found = self.script(stream, item)
            if found is None:
                raise CallFailed(GONE)
            yield item.id, found

    async def model_info(self, model: str = "") -> None:
        """It answers."""

    def steady(self, **how: Any) -> SteadyStream:
        return SteadyStream(cast(AsyncClient, self), **how)


async def test_what_a_broken_stream_left_goes_into_the_next() -> None:
    client = Scripted(lambda stream, item: None if item.text == "3" and stream < 3 else answer())
    async with client.steady() as stream:
        found = await asyncio.gather(*(stream.classify(Item(str(n), id="same")) for n in range(6)))
    assert all(isinstance(entry, Classification) for entry in found)
    assert client.streams == 3
    assert [client.sent.count(str(n)) for n in range(3)] == [1, 1, 1]


async def test_an_item_that_breaks_every_stream_is_given_up_alone() -> None:
    client = Scripted(lambda stream, item: None if item.text == "poison" else answer())
    async with client.steady() as stream:
        texts = ("poison", *"abcdef")
        poison, *others = await asyncio.gather(*(stream.classify(Item(text)) for text in texts))
        assert isinstance(await stream.classify(Item("later")), Classification)
    assert poison == GONE
    assert all(isinstance(entry, Classification) for entry in others)
    assert client.sent.count("poison") == MOST + 1


async def test_a_server_that_does_not_come_back_ends_it_after_the_patience() -> None:
    client = Scripted(lambda stream, item: None)

    async def away(model: str = "") -> None:
        raise CallFailed(GONE)

    client.model_info = away  # type: ignore[method-assign]  # a server that went
    async with client.steady(patience=0.05) as stream:
        with pytest.raises(CallFailed, match="the connection broke"):
            await stream.classify(Item("a"))


async def test_a_passing_failure_of_an_item_is_asked_again() -> None:
    crashed = Failure(grpc.StatusCode.UNAVAILABLE, "ENGINE_CRASHED", "again", retry_after=0.0)
    seen: list[str] = []

    def script(stream: int, item: Item) -> Answer:
        seen.append(item.text)
        return crashed if item.text == "always" or seen.count(item.text) < 3 else answer()

    client = Scripted(script)
    async with client.steady() as stream:
        assert isinstance(await stream.classify(Item("twice")), Classification)
        assert await stream.classify(Item("always")) == crashed
    assert (seen.count("twice"), seen.count("always"), client.streams) == (3, MOST + 1, 1)


async def test_what_retrying_cannot_cure_ends_it_at_once() -> None:
    refused = Failure(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "no token")

    def script(stream: int, item: Item) -> Answer:
        raise CallFailed(refused)

    async with Scripted(script).steady() as stream:
        with pytest.raises(CallFailed, match="UNAUTHENTICATED: no token"):
            await stream.classify(Item("a"))
        with pytest.raises(CallFailed, match="UNAUTHENTICATED"):
            await stream.classify(Item("b"))


async def test_silence_ends_it_after_the_patience() -> None:
    async with Scripted(lambda stream, item: answer(), silent=True).steady(patience=0.05) as stream:
        with pytest.raises(CallFailed, match="no answer for 0 s; the server hangs"):
            await stream.classify(Item("a"))


async def test_a_server_that_is_replaced_is_not_noticed(start: Start) -> None:
    first = await start()
    async with AsyncClient(first.target) as client, SteadyStream(client) as stream:
        assert isinstance(await stream.classify(Item("good")), Classification)
        first.engine.gate.clear()
        waiting = [asyncio.create_task(stream.classify(Item(f"word{n}"))) for n in range(20)]
        await until(lambda: first.engine.started == 2)
        stopping = asyncio.create_task(first.app.stop(settle=0))
        await asyncio.sleep(0)
        first.engine.gate.set()
        await stopping
        await start(port=first.ports.service)
        assert all(isinstance(entry, Classification) for entry in await asyncio.gather(*waiting))
