"""Calls and their stages as OpenTelemetry spans; the only module that imports `opentelemetry`.

It knows spans and the W3C headers, and no method of ours. No text ever becomes an attribute. Stages are told
when they are over, with times of the service's clock, which are moved to Unix time here. Sampling, the limits
of a span, and the name of the service come from the environment, as OpenTelemetry defines it
(`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, …).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.errors import BadSettings
from serving.stages import Span

SERVICE = "stratified-serve"
HEADERS = ("traceparent", "tracestate")
STAGES_PER_CALL = 256  # a stream may have a million items, and a trace of them all helps nobody
FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Statuses that are errors of a server, by OpenTelemetry's semantic conventions; the others are answers."""
PATIENCE = 3000  # milliseconds for what is left when the server stops


def otlp_provider(endpoint: str) -> TracerProvider:
    """Spans leave in batches from a thread of their own; what a receiver does not take in time is dropped.

    Raises `BadSettings` for an endpoint that is no URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadSettings(
            f"--otlp-endpoint {endpoint!r} is no URL of an OTLP receiver; write it as http://host:4317"
        )
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of the environment go first.
    resource = Resource({"service.name": SERVICE}).merge(_without_unknown_name(Resource.create()))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=parts.scheme == "http", timeout=PATIENCE / 1000)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@dataclass(slots=True)
class CallSpan:
    """One call's span, and how many stages it may still have."""

    span: trace.Span
    context: Any
    stages_left: int = STAGES_PER_CALL

    def note(self, **attributes: str | int | float) -> None:
        """See `Span.note`."""
        for name, value in attributes.items():
            self.span.set_attribute(f"stratified.{name}", value)

    def fail(self, code: str) -> None:
        """See `Span.fail`; the code alone, for messages may quote what a caller sent."""
        self.span.set_attribute("rpc.grpc.status", code)
        if code in FAULTS:
            self.span.set_status(trace.Status(trace.StatusCode.ERROR, code))


class OtelTracing:
    """See `serving.stages.Tracing`."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        clock: Callable[[], float],
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._provider, self._clock, self._unix_ns = provider, clock, unix_ns
        self._tracer = provider.get_tracer("stratified.serving")
        self._propagator = TraceContextTextMapPropagator()
        self._current: ContextVar[CallSpan | None] = ContextVar("call", default=None)

    @contextmanager
    def call(self, service: str, method: str, metadata: Mapping[str, Any]) -> Iterator[Span]:
        """See `Tracing.call`; the log lines of the call carry the ids of its trace."""
        carrier = {name: metadata[name] for name in HEADERS if isinstance(metadata.get(name), str)}
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=self._propagator.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        current = CallSpan(span, trace.set_span_in_context(span))
        # Never reset: a stream may be closed in another context, and each call has a context of its own.
        self._current.set(current)
        ids = span.get_span_context()
        structlog.contextvars.bind_contextvars(trace_id=f"{ids.trace_id:032x}", span_id=f"{ids.span_id:016x}")
        try:
            yield current
        finally:
            span.end()

    def stage(self, name: str, began: float, ended: float, **attributes: int) -> None:
        """See `Tracing.stage`."""
        current = self._current.get()
        if current is None or not current.stages_left or not current.span.is_recording():
            return
        current.stages_left -= 1
        offset = self._unix_ns() - round(self._clock() * 1e9)
        span = self._tracer.start_span(
            name, context=current.context, start_time=round(began * 1e9) + offset, attributes=attributes
        )
        span.end(end_time=round(ended * 1e9) + offset)

    def close(self) -> None:
        """See `Tracing.close`."""
        self._provider.force_flush(PATIENCE)
        self._provider.shutdown()


def _without_unknown_name(resource: Resource) -> Resource:
    """OpenTelemetry calls a service "unknown_service" when nobody named it."""
    attributes = dict(resource.attributes)
    if str(attributes.get("service.name", "")).startswith("unknown_service"):
        del attributes["service.name"]
    return Resource(attributes)
