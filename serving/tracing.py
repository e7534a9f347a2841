"""Whether this server traces, and with what: nothing is imported, and nothing is paid, where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from serving.errors import BadSettings

if TYPE_CHECKING:
    from serving.stages import Tracing

ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)  # as OpenTelemetry names them
PACKAGES = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.exporter.otlp")


def installed(find: Callable[[str], object] = find_spec) -> bool:
    """Whether the packages of the extra are here."""
    return all(find(name) is not None for name in PACKAGES)  # each is the parent of a later one


def endpoint_of(environment: Mapping[str, str], *, can_trace: Callable[[], bool] = installed) -> str:
    """Where OpenTelemetry's own variables send traces; "" for nowhere.

    They are often set for a whole cluster, so they are no reason not to start where the extra is missing.
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return ""
    found = next((environment[name] for name in ENDPOINTS if environment.get(name)), "")
    return found if found and can_trace() else ""


def open_tracing(
    endpoint: str, *, clock: Callable[[], float], can_trace: Callable[[], bool] = installed
) -> Tracing:
    """Spans that go to an OTLP receiver at `endpoint` over gRPC; "": no spans.

    Raises `BadSettings` when the packages of the extra are missing, or the endpoint is none.
    """
    if not endpoint:
        from serving.stages import NoTracing

        return NoTracing()
    if not can_trace():
        raise BadSettings(
            f"--otlp-endpoint {endpoint!r} needs OpenTelemetry; install stratified-sentiment[tracing], or "
            "leave it out"
        )
    from serving.otel import OtelTracing, otlp_provider

    return OtelTracing(otlp_provider(endpoint), clock=clock)
