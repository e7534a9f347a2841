"""The scrape port."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from serving.errors import PortInUse
from serving.metrics_http import MetricsServer


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    registry = CollectorRegistry()
    Counter("apples", "Apples.", registry=registry).inc(3)
    made = MetricsServer(registry, host="127.0.0.1", port=0)
    made.start()
    yield made
    made.close()


def fetch(server: MetricsServer, path: str, **headers: str) -> tuple[str, str]:
    request = Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    with urlopen(request, timeout=5) as reply:
        return reply.read().decode(), reply.headers["Content-Type"]


def test_metrics_are_served_as_prometheus_reads_them(server: MetricsServer) -> None:
    body, kind = fetch(server, "/metrics?name=x")
    assert "apples_total 3.0" in body
    assert kind.startswith("text/plain")


def test_openmetrics_is_served_to_who_asks(server: MetricsServer) -> None:
    body, kind = fetch(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_nothing_else_is_served(server: MetricsServer) -> None:
    with pytest.raises(HTTPError, match="404"):
        fetch(server, "/")


def test_a_port_in_use_is_one_line_with_the_cure(server: MetricsServer) -> None:
    with pytest.raises(PortInUse, match=rf"127.0.0.1:{server.port}: .*in use; set --metrics-port"):
        MetricsServer(CollectorRegistry(), host="127.0.0.1", port=server.port)


def test_a_server_that_never_started_can_be_closed() -> None:
    MetricsServer(CollectorRegistry(), host="127.0.0.1", port=0).close()
