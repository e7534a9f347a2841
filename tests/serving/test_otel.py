"""Spans of a call: kept in memory, and sent to a real OTLP receiver on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.app import App
from serving.engines.fake import FakeSource
from serving.errors import BadSettings
from serving.logs import configure
from serving.tracing import open_tracing
from tests.serving.conftest import settings

pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")

from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.otel import STAGES_PER_CALL, OtelTracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
Request, Streamed = sentiment_pb2.ClassifyRequest, sentiment_pb2.ClassifyStreamRequest
STAGES = ["decode", "tokenize", "queue", "inference", "interpret", "encode"]


async def traced(
    work: Callable[[Any], Any],
    tracing: OtelTracing | None = None,
    source: FakeSource | None = None,
    **values: Any,
) -> None:
    """Run `work` with a stub of a server that traces, and stop the server."""
    source = source or FakeSource("none")
    app = App(settings(**values), registry=CollectorRegistry(), source=source, tracing=tracing)
    ports = await app.listen()
    await app.load_models()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.service}") as channel:
        await work(sentiment_pb2_grpc.SentimentServiceStub(channel))
    await app.stop(settle=0)


@pytest.fixture
def kept() -> tuple[OtelTracing, Callable[[], list[ReadableSpan]]]:
    """A tracing whose spans stay here."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelTracing(provider, clock=time.monotonic), lambda: list(exporter.get_finished_spans())


async def test_a_call_joins_the_callers_trace_and_has_a_span_for_each_stage(kept: Any) -> None:
    tracing, spans = kept
    stream = io.StringIO()
    configure(level="DEBUG", fmt="json", stream=stream)

    async def work(stub: Any) -> None:
        await stub.Classify(
            Request(text="good film"), metadata=(("traceparent", PARENT), ("x-request-id", "r7"))
        )

    await traced(work, tracing)
    [call] = [span for span in spans() if span.name == "stratified.v1.SentimentService/Classify"]
    stages = [span for span in spans() if span is not call]
    assert f"{call.context.trace_id:032x}" == TRACE
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == "b7ad6b7169203331"
    assert call.attributes["rpc.method"] == "Classify"
    assert call.attributes["stratified.request_id"] == "r7"
    assert call.status.is_unset
    assert sorted(span.name for span in stages) == sorted(STAGES)
    for span in stages:
        assert span.parent.span_id == call.context.span_id
        assert call.start_time - 10**6 <= span.start_time <= span.end_time <= call.end_time + 10**6
    by_name = {span.name: span for span in stages}
    assert by_name["inference"].attributes == {"items": 1, "tokens": 4}
    assert by_name["queue"].end_time <= by_name["inference"].end_time
    assert "good" not in "".join(span.to_json() for span in spans()), "no text leaves in a span"
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert any(line.get("trace_id") == TRACE and line["event"] == "rpc" for line in lines)


async def test_errors_show_their_code_and_nothing_of_the_message(kept: Any) -> None:
    tracing, spans = kept

    async def work(stub: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Classify(Request(text="secret", model="mars"))

    await traced(work, tracing)
    [call] = [span for span in spans() if span.attributes.get("rpc.system")]
    assert call.attributes["rpc.grpc.status"] == "NOT_FOUND"
    assert call.parent is None, "a trace of its own"
    assert call.status.is_unset, "what a caller got wrong is no fault of the server"


async def test_a_fault_of_the_server_is_an_error(kept: Any) -> None:
    tracing, spans = kept

    async def work(stub: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Classify(Request(text="a", model="layers"))

    await traced(work, tracing, source=FakeSource("none", "layers"))
    [call] = [span for span in spans() if span.attributes.get("rpc.system")]
    assert call.attributes["rpc.grpc.status"] == "UNAVAILABLE"
    assert not call.status.is_ok
    assert not call.status.is_unset


async def test_a_long_stream_is_one_span_with_a_bounded_number_of_stages(kept: Any) -> None:
    tracing, spans = kept
    messages = [Streamed(settings=sentiment_pb2.StreamSettings())]
    messages += [Streamed(item=sentiment_pb2.BatchItem(text="a")) for _ in range(STAGES_PER_CALL)]

    async def work(stub: Any) -> None:
        assert len([reply async for reply in stub.ClassifyStream(iter(messages))]) == STAGES_PER_CALL

    await traced(work, tracing)
    assert len(spans()) == 1 + STAGES_PER_CALL


async def test_neighbours_do_not_mix_their_spans(kept: Any) -> None:
    tracing, spans = kept

    async def work(stub: Any) -> None:
        await asyncio.gather(*(stub.Classify(Request(text=f"a {n}")) for n in range(20)))

    await traced(work, tracing)
    calls = {span.context.span_id: span for span in spans() if span.attributes.get("rpc.system")}
    assert len(calls) == 20
    for identity, call in calls.items():
        own = [s for s in spans() if s.parent is not None and s.parent.span_id == identity]
        assert sorted(span.name for span in own) == sorted(STAGES)
        assert {span.context.trace_id for span in own} == {call.context.trace_id}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC fixes the name
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def receiving() -> Iterator[tuple[Receiver, str]]:
    receiver, server = Receiver(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


async def test_spans_reach_an_otlp_receiver_before_the_server_has_stopped() -> None:
    async def work(stub: Any) -> None:
        await stub.Classify(Request(text="good film"), metadata=(("traceparent", PARENT),))

    with receiving() as (receiver, endpoint):
        await traced(work, otlp_endpoint=endpoint)
        resources = [entry for request in receiver.requests for entry in request.resource_spans]
        named = {a.key: a.value.string_value for a in resources[0].resource.attributes}
        spans = [s for entry in resources for scope in entry.scope_spans for s in scope.spans]
    assert named["service.name"] == "stratified-serve"
    assert sorted(span.name for span in spans) == sorted([*STAGES, "stratified.v1.SentimentService/Classify"])
    assert {span.trace_id.hex() for span in spans} == {TRACE}


async def test_a_receiver_that_is_not_there_harms_no_call_and_no_stop() -> None:
    async def work(stub: Any) -> None:
        for _ in range(3):
            await stub.Classify(Request(text="good"), timeout=5)

    async with asyncio.timeout(30):
        await traced(work, otlp_endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("endpoint", ["localhost:4317", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_url_ends_the_start(endpoint: str) -> None:
    with pytest.raises(BadSettings, match=r"--otlp-endpoint .* is no URL"):
        open_tracing(endpoint, clock=lambda: 0.0)
