"""Whether this server traces, and with what: nothing is imported, and nothing is paid, where it does not."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from serving.errors import BadSettings
from serving.stages import NoTracing, Tracing


def open_tracing(endpoint: str, *, clock: Callable[[], float]) -> Tracing:
    """Spans that go to an OTLP receiver at `endpoint` over gRPC; "": no spans.

    Raises `BadSettings` when the packages of the extra are missing, or the endpoint is none.
    """
    if not endpoint:
        return NoTracing()
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise BadSettings(
            f"--otlp-endpoint {endpoint!r} needs opentelemetry; install stratified-sentiment[tracing], or "
            "leave it and OTEL_EXPORTER_OTLP_ENDPOINT empty"
        )
    from serving.otel import OtelTracing, otlp_provider

    return OtelTracing(otlp_provider(endpoint), clock=clock)
