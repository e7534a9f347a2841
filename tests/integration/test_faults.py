"""Faults that a caller can cause, each really caused: whoever is not at fault gets its own right answer.

The engine's own faults are in tests/serving/test_lane.py and test_crew.py, those of bundles in test_swap.py
and test_watch.py; the heavy ones are in test_faults_heavy.py and test_faults_machine.py.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections import Counter
from typing import Any

import grpc
import pytest

from protos.stratified.v1 import sentiment_pb2
from tests.serving.conftest import Running, Start, _quiet_logs, start
from tests.serving.test_lane import until

__all__ = ["_quiet_logs", "start"]

Request, BatchRequest = sentiment_pb2.ClassifyRequest, sentiment_pb2.BatchClassifyRequest
Streamed, Settings = sentiment_pb2.ClassifyStreamRequest, sentiment_pb2.StreamSettings
BatchItem, EXPLAIN = sentiment_pb2.BatchItem, sentiment_pb2.ClassifyOptions(explain=True)
SERVICE = "stratified.v1.SentimentService"
NEVER_TEXT = {
    "nothing": "",
    "white space": " \t\n\u3000\u00a0",
}
TEXTS = {
    "nulls": "a\x00b\x00 \x00",
    "control characters": "".join(map(chr, range(1, 32))) + "word",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈😀 fine",
    "right to left": "\u0641\u064a\u0644\u0645 \u202eabc\u202c \u200f\u05e2\u05d1\u05e8\u05d9\u05ea",
    "combining": "e\u0301" * 300 + "Z\u0351\u036b\u0343",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀",
    "one long word": "a" * 60_000,
    "many words": "word " * 12_000,
    "noncharacters": "\ufffe\uffff\U0010ffff word",
}


def counts(running: Running) -> tuple[float, float]:
    """Calls begun, and calls handled with any code."""
    begun, handled = 0.0, 0.0
    for metric in running.app.metrics.registry.collect():
        for sample in metric.samples:
            if sample.labels.get("grpc_service") == SERVICE:
                begun += sample.value * (sample.name == "grpc_server_started_total")
                handled += sample.value * (sample.name == "grpc_server_handled_total")
    return begun, handled


async def balanced(running: Running) -> None:
    """Everything that was begun is handled, and nothing waits."""
    await until(lambda: counts(running)[0] == counts(running)[1])
    await until(lambda: running.sample("stratified_queue_items", model="none") == 0)


async def good(running: Running, text: str = "good film") -> list[float]:
    """A call of somebody else, which must work whatever the others do."""
    reply = await running.sentiment.Classify(Request(text=text), timeout=20)
    return [entry.score for entry in reply.result.scores]


async def test_a_thousand_callers_half_of_whom_cancel_at_random(start: Start) -> None:
    running = await start()
    running.engine._seconds = 0.0002
    rng = random.Random(7)
    texts = [f"word{n} " * rng.randint(1, 12) for n in range(1000)]
    leaving = set(rng.sample(range(1000), 500))

    async def call(n: int) -> Any:
        await asyncio.sleep(rng.random())
        call = running.sentiment.Classify(Request(text=texts[n]), timeout=60)
        if n in leaving:
            await asyncio.sleep(rng.random() * 0.3)
            call.cancel()
        return (await call).result

    found = await asyncio.gather(*(call(n) for n in range(1000)), return_exceptions=True)
    gone = Counter(type(found[n]).__name__ for n in leaving)
    assert gone["CancelledError"] >= 100, gone
    running.engine._seconds = 0
    alone = {n: await good(running, texts[n]) for n in range(1000) if not isinstance(found[n], BaseException)}
    assert set(range(1000)) - leaving <= alone.keys(), "whoever stayed was answered"
    for n, scores in alone.items():
        assert [entry.score for entry in found[n].scores] == scores  # type: ignore[union-attr]  # no exception
    await balanced(running)


@pytest.mark.parametrize("name", list(TEXTS))
async def test_any_text_is_answered(start: Start, name: str) -> None:
    running = await start()
    reply = await running.sentiment.Classify(Request(text=TEXTS[name], options=EXPLAIN), timeout=20)
    assert reply.result.label
    for token in reply.result.tokens:
        assert token.start <= token.end <= len(TEXTS[name])


@pytest.mark.parametrize("name", list(NEVER_TEXT))
async def test_what_is_no_text_is_refused(start: Start, name: str) -> None:
    running = await start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.sentiment.Classify(Request(text=NEVER_TEXT[name]), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await good(running)


async def test_a_megabyte_of_one_word_is_refused_or_cut(start: Start) -> None:
    word = "a" * 1024 * 1024
    running = await start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.sentiment.Classify(Request(text=word), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    generous = await start(max_text_bytes=2 * 1024 * 1024)
    assert (await generous.sentiment.Classify(Request(text=word), timeout=20)).result.label
    assert (await generous.sentiment.Classify(Request(text=f"{word} " * 1), timeout=20)).result.label


def raw(running: Running, method: str, *, streams: bool) -> Any:
    """A method that sends bytes as they are."""
    make = running.channel.stream_stream if streams else running.channel.unary_unary
    return make(f"/{SERVICE}/{method}", request_serializer=bytes, response_deserializer=bytes)


INVALID_UTF8 = b"\x0a\x04\xff\xfe\xfd\xfc"  # field 1, four bytes that are no text
GARBAGE = [
    b"\xff" * 64,
    bytes(range(256)),
    b"\x0a\xff\xff\xff\xff\x0f",
    INVALID_UTF8,
    b"\x08" * 5,
    b"\x0b\x0b\x0b",
]


async def test_garbage_in_a_message_is_refused_and_counted(start: Start) -> None:
    running = await start()
    for method, blob in itertools.product(("Classify", "BatchClassify"), GARBAGE):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(running, method, streams=False)(blob, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, blob)
    for blob in GARBAGE:
        call = raw(running, "ClassifyStream", streams=True)(iter([blob]), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, blob
    assert await good(running)
    await balanced(running)


async def test_garbage_in_the_middle_of_a_stream_ends_that_stream_alone(start: Start) -> None:
    running = await start()
    head = [Streamed(settings=Settings()), Streamed(item=BatchItem(id="a", text="good"))]
    blobs = [*(message.SerializeToString() for message in head), INVALID_UTF8]
    replies = raw(running, "ClassifyStream", streams=True)(iter(blobs), timeout=20)
    assert sentiment_pb2.ClassifyStreamResponse.FromString(await replies.read()).id == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await replies.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await balanced(running)


async def test_messages_that_are_too_large_are_refused(start: Start) -> None:
    running = await start(max_message_bytes=64 * 1024)
    for call in (
        running.sentiment.Classify(Request(text="a" * 100_000), timeout=20),
        running.sentiment.BatchClassify(BatchRequest(items=[BatchItem(text="a" * 1000)] * 100), timeout=20),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await good(running)


async def test_bytes_that_are_no_http2_harm_nobody(start: Start) -> None:
    running = await start()
    rng = random.Random(3)
    openings = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
    sockets = []
    for n in range(60):
        peer = socket.create_connection(("127.0.0.1", running.ports.service))
        peer.sendall(openings[n % 4] + rng.randbytes(rng.randint(0, 4096)))
        sockets.append(peer)
        if n % 3:
            peer.close()
    assert await good(running)
    for peer in sockets:
        peer.close()
    assert await good(running)


async def test_streams_that_say_little_or_nothing_hold_nobody_up(start: Start) -> None:
    running = await start(max_streams=1024, grace_seconds=1)

    async def drip() -> Any:
        yield Streamed(settings=Settings())
        while True:
            await asyncio.sleep(0.2)
            yield Streamed(item=BatchItem(id="x", text="slow"))

    async def mute() -> Any:
        await asyncio.Event().wait()
        yield Streamed(settings=Settings())

    slow = [running.sentiment.ClassifyStream(source()) for source in [drip, mute] * 75]
    heard = await asyncio.gather(*(call.read() for call in slow[::2]))
    assert {reply.id for reply in heard} == {"x"}
    assert len(await asyncio.gather(*(good(running, f"word{n}") for n in range(50)))) == 50
    for call in slow[::3]:
        call.cancel()
    assert await good(running)
    await running.app.stop(settle=0)  # within the grace period, whatever the streams do
    begun, handled = counts(running)
    assert begun == handled


async def test_a_reader_that_stops_reading_holds_itself_up_alone(start: Start) -> None:
    running = await start(max_stream_items=8)

    async def endless() -> Any:
        yield Streamed(settings=Settings(options=EXPLAIN))  # large replies fill the pipe sooner
        for n in itertools.count():
            yield Streamed(item=BatchItem(id=str(n), text=f"word{n % 50} " * 10))

    call = running.sentiment.ClassifyStream(endless())
    await call.read()
    before = -1.0
    labels = {"grpc_type": "bidi_stream", "grpc_service": SERVICE, "grpc_method": "ClassifyStream"}
    async with asyncio.timeout(200):
        while (now := running.sample("grpc_server_msg_received_total", **labels)) != before:
            before = now
            await asyncio.sleep(0.5)
    assert await good(running)
    call.cancel()
    await balanced(running)
