"""Under pressure, through stock stubs: who is refused, when to come back, and what is computed for whom."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from protos.stratified.v1 import model_pb2, sentiment_pb2
from serving.engines.fake import FakeEncoder
from serving.types import Encoded, Truncation
from tests.serving.conftest import Start
from tests.serving.rpc.test_servicers import failure_of_error, refused
from tests.serving.test_lane import until

Request, Batch, BatchItem = (
    sentiment_pb2.ClassifyRequest,
    sentiment_pb2.BatchClassifyRequest,
    sentiment_pb2.BatchItem,
)
LONG = "second a b c d e f g h"  # 11 tokens: the caller's part of a queue of 16 has no room for 3 more


async def test_half_of_the_callers_cancel_and_the_others_get_their_own_answers(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    texts = [f"word{index} more" for index in range(60)]
    first = running.sentiment.Classify(Request(text="first"))
    await until(lambda: running.engine.started == 1)
    calls = [running.sentiment.Classify(Request(text=text)) for text in texts]
    await until(lambda: running.sample("stratified_queue_items", model="none") == 60)
    for call in calls[::2]:
        call.cancel()
    await until(lambda: running.sample("stratified_queue_items", model="none") == 30)
    running.engine.gate.set()
    got = [(await call).result for call in calls[1::2]]
    for text, result in zip(texts[1::2], got, strict=True):
        alone = (await running.sentiment.Classify(Request(text=text))).result
        assert list(result.scores) == list(alone.scores)
    computed = {ids for batch in running.engine.batches for ids in batch}
    assert len(computed) == 31, "nothing that still waited is computed for the cancelled"
    await first


async def test_a_deadline_that_passes_is_deadline_exceeded_and_is_not_computed(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    blocking = running.sentiment.Classify(Request(text="first"))
    await until(lambda: running.engine.started == 1)
    error = await refused(running.sentiment.Classify(Request(text="second"), timeout=0.1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.sample("stratified_queue_items", model="none") == 0)
    running.engine.gate.set()
    await blocking
    assert len(running.engine.batches) == 1


async def test_a_call_without_deadline_gets_the_servers_own(start: Start) -> None:
    running = await start(default_deadline=0.1)
    running.engine.gate.clear()
    error = await refused(running.sentiment.Classify(Request(text="first")))
    assert failure_of_error(error).reason == "DEADLINE_MISSED"


async def test_a_full_queue_sheds_with_pushback(start: Start) -> None:
    running = await start(queue_tokens=16)
    running.engine.gate.clear()
    calls = [running.sentiment.Classify(Request(text="first a b c d e"))]
    await until(lambda: running.engine.started == 1)
    calls += [running.sentiment.Classify(Request(text="second a b c d e f"))]
    await until(lambda: running.sample("stratified_queue_items", model="none") == 1)
    error = await refused(running.sentiment.Classify(Request(text="third a b c d e f g")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(str(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])) >= 50
    assert failure_of_error(error).retry_after >= 0.05
    running.engine.gate.set()
    await asyncio.gather(*calls)


async def test_what_a_full_queue_refuses_was_never_tokenised(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, read = await start(queue_tokens=16), list[str]()
    encode = FakeEncoder.encode

    def seen(encoder: FakeEncoder, text: str, truncation: Truncation) -> Encoded:
        read.append(text)
        return encode(encoder, text, truncation)

    monkeypatch.setattr(FakeEncoder, "encode", seen)
    running.engine.gate.clear()
    calls = [running.sentiment.Classify(Request(text="first"))]
    await until(lambda: running.engine.started == 1)
    calls.append(running.sentiment.Classify(Request(text=LONG)))
    await until(lambda: running.sample("stratified_queue_items", model="none") == 1)
    error = await refused(running.sentiment.Classify(Request(text="third")))
    assert failure_of_error(error).reason == "CALLER_QUEUE_FULL"
    assert read == ["first", LONG]
    running.engine.gate.set()
    await asyncio.gather(*calls)


async def test_a_crashed_engine_is_unavailable_with_pushback_and_recovers(start: Start) -> None:
    running = await start()
    running.engine.die.set()
    error = await refused(running.sentiment.Classify(Request(text="a")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert failure_of_error(error).reason == "ENGINE_CRASHED"
    await until(lambda: running.sample("stratified_model_ready", model="none") == 0)
    listed = await running.models.ListModels(model_pb2.ListModelsRequest())
    assert listed.models[0].state == model_pb2.MODEL_STATE_FAILED
    running.engine.die.clear()
    await until(lambda: running.sample("stratified_model_ready", model="none") == 1)
    await running.sentiment.Classify(Request(text="a"))
