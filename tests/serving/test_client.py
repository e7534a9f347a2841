"""The client against a real server: typed answers, errors, retries, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
import pytest

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.client import AsyncClient, CallFailed, Client, Failure
from serving.types import Classification, DomainSource, Item, ModelState, Options, StreamOrder
from tests.serving.conftest import Running, Start
from tests.serving.test_lane import until

T = TypeVar("T")


async def blocking(running: Running, use: Callable[[Client], T], **options: float) -> T:
    """Use the blocking client on a thread, beside the server's loop."""

    def work() -> T:
        with Client(running.target, **options) as client:  # type: ignore[arg-type]  # attempts is an int
            return use(client)

    return await asyncio.to_thread(work)


async def test_one_text(start: Start) -> None:
    running = await start()
    options = Options(explain=True, timings=True, raw_logits=True, top_k=1)
    answer = await blocking(
        running, lambda client: client.classify("good film", domain="imdb", options=options)
    )
    assert (answer.domain, answer.domain_source, len(answer.scores)) == ("imdb", DomainSource.GIVEN, 1)
    assert answer.timings is not None
    async with AsyncClient(running.target) as client:
        again = await client.classify("good film", domain="imdb", options=options)
    assert again.scores == answer.scores


async def test_a_batch_keeps_order_and_errors(start: Start) -> None:
    running = await start()
    items = [Item("good", id="a"), Item(" ", id="b"), Item("bad", "mars", "c")]
    answers = await blocking(running, lambda client: client.classify_batch(items))
    assert [type(answer) for answer in answers] == [Classification, Failure, Classification]
    failure = answers[1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.reason, failure.field) == (
        grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", "items[1].text",
    )  # fmt: skip
    async with AsyncClient(running.target) as client:
        again = await client.classify_batch(items)
    assert again[0] == answers[0]


@pytest.mark.parametrize("order", list(StreamOrder))
async def test_a_stream_of_any_length(start: Start, order: StreamOrder) -> None:
    running = await start()
    items = [Item("word " * (n % 7), id=str(n)) for n in range(200)]
    pairs = await blocking(running, lambda client: list(client.classify_stream(items, order=order)))
    assert sorted(int(identity) for identity, _ in pairs) == list(range(200))
    assert sum(isinstance(answer, Failure) for _, answer in pairs) == len(range(0, 200, 7))

    async def source() -> AsyncIterator[Item]:
        for item in items:
            yield item

    async with AsyncClient(running.target) as client:
        again = [pair async for pair in client.classify_stream(source(), order=order)]
    assert {identity for identity, _ in again} == {identity for identity, _ in pairs}


async def test_models_are_described(start: Start) -> None:
    running = await start(max_items=9)
    card, limits = await blocking(running, lambda client: client.model_info())
    assert (card.version.name, limits.max_items) == ("none", 9)
    summaries, default = await blocking(running, lambda client: client.list_models())
    assert [summary.state for summary in summaries] == [ModelState.READY, ModelState.AVAILABLE]
    assert default == "none"
    async with AsyncClient(running.target) as client:
        assert (await client.model_info())[0] == card


async def test_health(start: Start) -> None:
    running = await start(loaded=False)
    assert not await blocking(running, lambda client: client.health())
    assert await blocking(running, lambda client: client.health(""))
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await blocking(running, lambda client: client.health("nope"))


async def test_errors_carry_what_the_server_said(start: Start) -> None:
    running = await start()
    with pytest.raises(CallFailed, match="INVALID_ARGUMENT: the text is empty") as caught:
        await blocking(running, lambda client: client.classify(""))
    assert (caught.value.failure.reason, caught.value.failure.field) == ("EMPTY_TEXT", "text")
    assert caught.value.failure.request_id
    async with AsyncClient(running.target) as client:
        with pytest.raises(CallFailed, match="NOT_FOUND"):
            await client.classify("a", model="mars")


async def test_a_refused_call_is_tried_again_when_the_server_says(start: Start) -> None:
    running = await start(queue_tokens=16)
    running.engine.gate.clear()
    async with AsyncClient(running.target) as client:
        tasks = [asyncio.create_task(client.classify("first a b c d e"))]
        await until(lambda: running.engine.started == 1)
        tasks += [asyncio.create_task(client.classify("second a b c d e f"))]
        await until(lambda: running.sample("stratified_queue_items", model="none") == 1)
        tasks += [asyncio.create_task(client.classify("third a b c d e f g"))]
        await until(lambda: running.sample("stratified_rejected_total", reason="CALLER_QUEUE_FULL") >= 1)
        running.engine.gate.set()
        assert len(await asyncio.gather(*tasks)) == 3


class Stopping(sentiment_pb2_grpc.SentimentServiceServicer):
    """Cancels the first call, as the core of a stopping server does to what it had read last."""

    def __init__(self) -> None:
        self.calls = 0

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802  the name on the wire
        self.calls += 1
        if self.calls == 1:
            await context.abort(grpc.StatusCode.CANCELLED)
        return sentiment_pb2.ClassifyResponse()


async def test_a_call_that_a_stopping_server_cancelled_is_tried_again() -> None:
    server, servicer = grpc.aio.server(), Stopping()  # type: ignore[abstract]  # one method is enough
    sentiment_pb2_grpc.add_SentimentServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await client.classify("good")
    await server.stop(None)
    assert servicer.calls == 2


async def test_what_waiting_cannot_cure_is_not_tried_again(start: Start) -> None:
    running = await start()
    labels = {
        "grpc_type": "unary",
        "grpc_service": "stratified.v1.SentimentService",
        "grpc_method": "Classify",
    }
    with pytest.raises(CallFailed, match="UNAVAILABLE: model 'routing' is in the store but not loaded"):
        await blocking(running, lambda client: client.classify("a", model="routing"))
    assert running.sample("grpc_server_started_total", **labels) == 1


async def test_a_deadline_holds(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
        await blocking(running, lambda client: client.classify("a", deadline=0.1))


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    def work() -> None:
        with Client("127.0.0.1:1", attempts=1, deadline=5) as client:
            client.classify("a")

    with pytest.raises(CallFailed, match="UNAVAILABLE"):
        await asyncio.to_thread(work)
