"""Whether a server traces: by its own setting, by OpenTelemetry's variables, or not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serving.errors import BadSettings
from serving.settings import read_settings
from serving.stages import NoTracing
from serving.tracing import endpoint_of, installed, open_tracing

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


def found(**environment: str) -> str:
    return endpoint_of(environment, can_trace=lambda: True)


def test_opentelemetrys_variables_are_heard_the_narrower_one_first() -> None:
    assert found() == ""
    assert found(**HERE) == "http://collector:4317"
    assert found(**HERE, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://traces:4317") == "http://traces:4317"
    assert found(**HERE, OTEL_SDK_DISABLED="true") == ""
    assert found(**HERE, OTEL_TRACES_EXPORTER="none") == ""


def test_a_variable_of_the_cluster_keeps_no_server_from_starting() -> None:
    assert endpoint_of(HERE, can_trace=lambda: False) == ""


def test_our_own_setting_wins() -> None:
    found = read_settings({"models": "m"}, {**HERE, "STRATIFIED_OTLP_ENDPOINT": "http://ours:4317"})
    assert found.otlp_endpoint == "http://ours:4317"


def test_what_was_asked_for_and_cannot_be_had_ends_the_start() -> None:
    with pytest.raises(BadSettings, match=r"--otlp-endpoint 'http://x:1' needs OpenTelemetry; install"):
        open_tracing("http://x:1", clock=lambda: 0.0, can_trace=lambda: False)
    assert not installed(lambda name: None if name == "opentelemetry.sdk" else name)


def test_without_an_endpoint_nothing_is_imported_and_nothing_is_told() -> None:
    code = (
        "import sys; from serving.tracing import open_tracing; open_tracing('', clock=lambda: 0.0);"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert isinstance(open_tracing("", clock=lambda: 0.0), NoTracing)
