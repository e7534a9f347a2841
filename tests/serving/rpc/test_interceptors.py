"""What crosses every call: ids, numbers that always balance, and bugs that tell nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import status_pb2

from protos.stratified.v1 import sentiment_pb2
from serving.calls import failure_of
from serving.rpc.interceptors import Method, call_kind, request_id
from tests.serving.conftest import Running, Start
from tests.serving.test_lane import until

Request = sentiment_pb2.ClassifyRequest
CLASSIFY = {"grpc_type": "unary", "grpc_service": "stratified.v1.SentimentService", "grpc_method": "Classify"}
STREAM = {**CLASSIFY, "grpc_type": "bidi_stream", "grpc_method": "ClassifyStream"}


def handled(running: Running, labels: dict[str, str]) -> dict[str, float]:
    codes = {
        code.name: running.sample("grpc_server_handled_total", **labels, grpc_code=code.name)
        for code in grpc.StatusCode
    }
    return {name: count for name, count in codes.items() if count}


async def failing(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_every_series_exists_before_the_first_call(start: Start) -> None:
    running = await start()
    for labels in (CLASSIFY, STREAM):
        assert running.sample("grpc_server_started_total", **labels) == 0
        assert handled(running, labels) == {}
        assert running.sample("grpc_server_msg_received_total", **labels) == 0
        assert running.sample("grpc_server_msg_sent_total", **labels) == 0
        assert running.sample("grpc_server_handling_seconds_count", **labels) == 0


async def test_started_less_handled_is_what_is_in_flight(start: Start) -> None:
    running = await start()
    await running.sentiment.Classify(Request(text="a"))
    await failing(running.sentiment.Classify(Request(text="")))
    running.engine.gate.clear()
    late = running.sentiment.Classify(Request(text="b"), timeout=0.2)
    cancelled = running.sentiment.Classify(Request(text="c"))
    await until(lambda: running.sample("grpc_server_started_total", **CLASSIFY) == 4)
    cancelled.cancel()
    await failing(late)
    await until(lambda: sum(handled(running, CLASSIFY).values()) == 4)
    assert handled(running, CLASSIFY) == {
        "OK": 1,
        "INVALID_ARGUMENT": 1,
        "DEADLINE_EXCEEDED": 1,
        "CANCELLED": 1,
    }
    assert running.sample("grpc_server_handling_seconds_count", **CLASSIFY) == 4
    assert running.sample("grpc_server_msg_received_total", **CLASSIFY) == 4
    assert running.sample("grpc_server_msg_sent_total", **CLASSIFY) == 1


async def test_streams_count_their_messages_and_their_cancellation(start: Start) -> None:
    running = await start()
    call = running.sentiment.ClassifyStream()
    await call.write(sentiment_pb2.ClassifyStreamRequest(settings=sentiment_pb2.StreamSettings()))
    for text in ("a", "b"):
        await call.write(sentiment_pb2.ClassifyStreamRequest(item=sentiment_pb2.BatchItem(text=text)))
        await call.read()
    assert running.sample("grpc_server_msg_received_total", **STREAM) == 3
    assert running.sample("grpc_server_msg_sent_total", **STREAM) == 2
    assert running.sample("grpc_server_started_total", **STREAM) == 1
    assert handled(running, STREAM) == {}
    call.cancel()
    await until(lambda: handled(running, STREAM) == {"CANCELLED": 1})


async def test_a_bug_is_internal_and_its_words_stay_inside(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()

    async def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("the secret text")

    monkeypatch.setattr(running.app.service, "classify", broken)
    with structlog.testing.capture_logs() as logs:
        error = await failing(running.sentiment.Classify(Request(text="a")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{error.details()} {error.trailing_metadata()}"
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert failure_of(status).request_id in str(error.details())
    assert handled(running, CLASSIFY) == {"INTERNAL": 1}
    loud = [entry for entry in logs if entry["log_level"] != "debug"]
    assert "secret" not in str(loud)
    assert loud[0]["error_type"] == "KeyError"


@pytest.mark.parametrize(
    ("given", "kept"), [("my-id.1", True), ("x" * 65, False), ("a b", False), ("", False)]
)
async def test_a_callers_id_comes_back_when_it_is_one(start: Start, given: str, kept: bool) -> None:
    running = await start()
    call = running.sentiment.Classify(Request(text="a"), metadata=(("x-request-id", given),))
    await call
    returned = dict(await call.trailing_metadata())["x-request-id"]
    assert (returned == given) is kept
    assert returned


async def test_bytes_that_are_no_message_are_the_callers_fault(start: Start) -> None:
    running = await start()
    raw: Any = running.channel.unary_unary("/stratified.v1.SentimentService/Classify")
    error = await failing(raw(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "3 bytes are no request of stratified.v1.SentimentService/Classify" in str(error.details())
    bad_text = Request(text="AAAA").SerializeToString().replace(b"AAAA", b"\xff\xfe\xfd\xfc")
    assert (await failing(raw(bad_text))).code() is grpc.StatusCode.INVALID_ARGUMENT
    await running.sentiment.Classify(Request(text="a"))


async def test_a_method_that_does_not_exist_is_unimplemented(start: Start) -> None:
    running = await start()
    nope: Any = running.channel.unary_unary("/stratified.v1.SentimentService/Nope")
    error = await failing(nope(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_is_refused(start: Start) -> None:
    running = await start(max_message_bytes=2048)
    error = await failing(running.sentiment.Classify(Request(text="x" * 4096)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_no_text_is_ever_logged(start: Start) -> None:
    running = await start()
    running.engine.raise_on.update(range(30_100))
    with structlog.testing.capture_logs() as logs:
        await failing(running.sentiment.Classify(Request(text="verysecret")))
        running.engine.raise_on.clear()
        await failing(running.sentiment.Classify(Request(text="verysecret " * 9000)))
        await asyncio.sleep(0.15)
    assert len(logs) >= 2
    assert "verysecret" not in str(logs)


def test_kinds_and_names_as_the_metrics_want_them() -> None:
    kinds = [call_kind(a, b) for a in (False, True) for b in (False, True)]
    assert kinds == ["unary", "server_stream", "client_stream", "bidi_stream"]
    handler: Any = grpc.unary_stream_rpc_method_handler(lambda request, context: iter(()))
    assert Method.of("/a.b.C/D", handler) == Method("server_stream", "a.b.C", "D")
    assert request_id() == ""
