"""Streams through stock stubs over loopback: order, wrong beginnings, back-pressure, a dying engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from protos.stratified.v1 import sentiment_pb2
from tests.serving.conftest import Start
from tests.serving.rpc.test_servicers import BatchItem, Options, Request, Streamed, failure_of_error, refused
from tests.serving.test_lane import until


async def stream(
    *messages: sentiment_pb2.ClassifyStreamRequest,
) -> AsyncIterator[sentiment_pb2.ClassifyStreamRequest]:
    for message in messages:
        yield message


def settings_message(**values: object) -> sentiment_pb2.ClassifyStreamRequest:
    return Streamed(settings=sentiment_pb2.StreamSettings(**values))  # type: ignore[arg-type]  # by name


def item_message(identity: object, text: str) -> sentiment_pb2.ClassifyStreamRequest:
    return Streamed(item=BatchItem(id=str(identity), text=text))


@pytest.mark.parametrize("order", [1, 2])
async def test_a_stream_answers_every_item_under_its_id(start: Start, order: int) -> None:
    running = await start(max_stream_items=4)
    items = [item_message(index, "word " * (index % 5)) for index in range(60)]
    call = running.sentiment.ClassifyStream(stream(settings_message(order=order), *items))
    replies = [reply async for reply in call]
    ids = [int(reply.id) for reply in replies]
    assert sorted(ids) == list(range(60))
    if order == 1:
        assert ids == sorted(ids)
    for reply in replies:
        assert (reply.WhichOneof("outcome") == "error") is (int(reply.id) % 5 == 0)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), "INVALID_REQUEST"),
        ((item_message(1, "a"),), "INVALID_REQUEST"),
        ((settings_message(), settings_message()), "INVALID_REQUEST"),
        ((settings_message(order=7),), "INVALID_REQUEST"),
        ((settings_message(model="mars"),), "MODEL_NOT_FOUND"),
        ((settings_message(options=Options(top_k=9)),), "INVALID_REQUEST"),
    ],
)
async def test_a_stream_that_begins_wrongly_is_refused(
    start: Start, messages: tuple[sentiment_pb2.ClassifyStreamRequest, ...], reason: str
) -> None:
    running = await start()

    async def consume() -> None:
        async for _ in running.sentiment.ClassifyStream(stream(*messages)):
            pass

    assert failure_of_error(await refused(consume())).reason == reason


async def test_a_stream_is_held_back_where_a_call_would_be_refused(start: Start) -> None:
    running = await start(queue_tokens=16, max_stream_items=32)
    items = [item_message(index, "word word") for index in range(40)]
    call = running.sentiment.ClassifyStream(stream(settings_message(), *items))
    replies = [reply async for reply in call]
    assert all(reply.WhichOneof("outcome") == "result" for reply in replies)
    assert len(replies) == 40


async def test_an_abandoned_stream_leaves_nothing_behind(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    call = running.sentiment.ClassifyStream(
        stream(settings_message(), *(item_message(n, "a b") for n in range(30)))
    )
    await until(lambda: running.sample("stratified_queue_items", model="none") > 0)
    call.cancel()
    await until(lambda: running.sample("stratified_queue_items", model="none") == 0)
    running.engine.gate.set()
    await running.sentiment.Classify(Request(text="still here"))


async def test_an_engine_that_dies_under_a_stream_costs_items_and_not_the_stream(start: Start) -> None:
    running = await start()
    call = running.sentiment.ClassifyStream()
    await call.write(settings_message())
    kinds = []
    for index in range(3):
        running.engine.die.set() if index == 1 else running.engine.die.clear()
        await call.write(item_message(index, "a"))
        kinds.append((await call.read()).WhichOneof("outcome"))
        if index == 1:
            await until(lambda: running.sample("stratified_model_ready", model="none") == 0)
            running.engine.die.clear()
            await until(lambda: running.sample("stratified_model_ready", model="none") == 1)
    call.cancel()
    assert kinds == ["result", "error", "result"]
