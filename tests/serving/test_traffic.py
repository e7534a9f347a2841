"""The canary over the wire: its share by an injected source of numbers, and nobody harmed when it is away."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import sentiment_pb2
from serving.app import App
from serving.engines.fake import FakeSource
from serving.errors import BadStore
from tests.serving.conftest import Running, Start, settings
from tests.serving.test_lane import until

Request, Streamed = sentiment_pb2.ClassifyRequest, sentiment_pb2.ClassifyStreamRequest
TENTHS = [place / 10 for place in range(10)]  # one number in each tenth


def draws(*values: float):  # type: ignore[no-untyped-def]  # a source of numbers
    return itertools.cycle(values).__next__


async def names(running: Running, count: int, **request: Any) -> Counter[str]:
    replies = [await running.sentiment.Classify(Request(text="a", **request)) for _ in range(count)]
    return Counter(reply.result.model.name for reply in replies)


async def test_its_share_of_the_calls_that_name_no_model_is_answered_by_the_canary(start: Start) -> None:
    running = await start(canary_model="routing", canary_percent=30, draw=draws(*TENTHS))
    assert await names(running, 20) == {"none": 14, "routing": 6}
    assert await names(running, 5, model="none") == {"none": 5}
    assert await names(running, 5, model="routing") == {"routing": 5}
    assert running.sample("stratified_canary_calls_total", target="canary") == 6
    assert running.sample("stratified_canary_calls_total", target="default") == 14


async def test_a_whole_stream_and_a_whole_batch_have_one_model(start: Start) -> None:
    running = await start(canary_model="routing", canary_percent=50, draw=draws(0.1, 0.9))
    for name in ("routing", "none"):
        messages = [Streamed(settings=sentiment_pb2.StreamSettings())]
        messages += [Streamed(item=sentiment_pb2.BatchItem(text="a")) for _ in range(5)]
        got = [reply.result.model.name async for reply in running.sentiment.ClassifyStream(iter(messages))]
        assert got == [name] * 5
    items = [sentiment_pb2.BatchItem(text="a")] * 4
    reply = await running.sentiment.BatchClassify(sentiment_pb2.BatchClassifyRequest(items=items))
    assert {result.result.model.name for result in reply.results} == {"routing"}


async def test_a_canary_that_is_down_is_passed_over(start: Start) -> None:
    running = await start(canary_model="routing", canary_percent=100)
    engine = running.source.engines["routing"]
    engine.die.set()
    with pytest.raises(grpc.aio.AioRpcError):  # whoever meets the crash is told to come back
        await running.sentiment.Classify(Request(text="a"))
    await until(lambda: running.sample("stratified_model_ready", model="routing") == 0)
    assert await names(running, 3) == {"none": 3}
    assert running.sample("stratified_canary_calls_total", target="unready") == 3
    engine.die.clear()
    await until(lambda: running.sample("stratified_model_ready", model="routing") == 1)
    assert await names(running, 3) == {"routing": 3}


async def test_a_canary_that_became_the_default_is_none_any_more(start: Start) -> None:
    running = await start(canary_model="routing", canary_percent=50, draw=draws(0.9))
    await running.app.fleet.set_default("routing")
    assert await names(running, 2) == {"routing": 2}


async def test_a_broken_canary_does_not_keep_the_default_from_serving(start: Start) -> None:
    source = FakeSource("none", "routing", broken=("routing",))
    running = await start(source, canary_model="routing", canary_percent=100)
    assert await names(running, 2) == {"none": 2}


async def test_a_canary_that_the_store_does_not_have_ends_the_start() -> None:
    app = App(
        settings(canary_model="mars", canary_percent=1),
        registry=CollectorRegistry(),
        source=FakeSource("none"),
    )
    with pytest.raises(BadStore, match="--canary-model 'mars' has no bundle"):
        await app.load_models()
    await app.stop(settle=0)
