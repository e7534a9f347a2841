"""The newcomer's path with the installed programs: a small sweep on the real quickstart data, served, called.

Run by `make smoke`. Everything happens in a folder of its own, on ports that the system hands out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import jsonschema
import pytest
from grpc_health.v1 import health_pb2

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from trainer_job.config import VARIANTS

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
DOMAINS = ("imdb", "rotten_tomatoes", "tweets", "amazon", "editorials")
CUT = (
    "data.train_samples=250",
    "data.validation_samples=150",
    "data.test_samples=250",
    "model.max_length=32",
    "training.max_steps=8",
    "training.batch_size=16",
)


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`stratified-train` with the quickstart's configuration, cut down, writing under `folder`."""
    settings = [*CUT, f"results={folder}/results", f"logs={folder}/logs", f"cache={folder}/cache"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [str(BIN / "stratified-train"), words[0], "--config", "quickstart", *overrides, *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep."""
    folder = tmp_path_factory.mktemp("smoke")
    done = train(folder, "run")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """A running `stratified-serve` on ports of its own."""

    def __init__(self, models: Path) -> None:
        self.port, self.metrics, self.probe, self.admin = (free_port() for _ in range(4))
        command = [str(BIN / "stratified-serve"), "--models", str(models), "--port", str(self.port)]
        command += ["--metrics-port", str(self.metrics), "--probe-port", str(self.probe)]
        environment = os.environ | {"STRATIFIED_ADMIN_PORT": str(self.admin)}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def wait(self) -> None:
        """Until readiness says SERVING."""
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service="stratified.v1.SentimentService")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the service ended while it started"
            try:
                reply = check(request, timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.2)
        pytest.fail("the service was not ready within two minutes")


@pytest.fixture(scope="module")
def service(sweep: Path) -> Iterator[Service]:
    """The service on what the sweep selected; SIGTERM must end it well."""
    running = Service(sweep / "results")
    try:
        running.wait()
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=60) == 0
    finally:
        running.channel.close()
        if running.process.poll() is None:
            running.process.kill()


def test_sweep_records_every_variant_complete_and_a_choice(sweep: Path) -> None:
    record = json.loads((sweep / "results" / "results.json").read_text())
    schema = subprocess.run(
        [str(BIN / "stratified-train"), "schema"], capture_output=True, text=True, check=True
    )
    jsonschema.validate(record, json.loads(schema.stdout))
    assert record["status"] == "complete"
    assert {unit["variant"] for unit in record["units"]} == set(VARIANTS)
    assert record["selected"]["variant"] in VARIANTS
    for variant in VARIANTS:
        assert (sweep / "results" / variant / "manifest.json").is_file()
        assert list((sweep / "logs" / variant).rglob("events.out.tfevents*"))
    assert (sweep / "results" / "report.html").stat().st_size > 10_000


def test_second_run_has_nothing_to_do(sweep: Path) -> None:
    again = train(sweep, "run")
    assert again.returncode == 0
    assert "everything complete" in again.stdout


@pytest.mark.parametrize("domain", DOMAINS)
def test_classify_answers_in_each_domain(service: Service, domain: str) -> None:
    stub = sentiment_pb2_grpc.SentimentServiceStub(service.channel)
    request = sentiment_pb2.ClassifyRequest(text="The plot drags, but the ending is worth it.", domain=domain)
    result = stub.Classify(request, timeout=20).result
    assert result.label in {"negative", "neutral", "positive"}
    assert result.domain == domain
    assert sum(score.score for score in result.scores) == pytest.approx(1, abs=1e-4)


def test_command_line_client_prints_a_result(service: Service) -> None:
    command = [str(BIN / "stratified-classify"), "--target", f"127.0.0.1:{service.port}", "--json"]
    done = subprocess.run(
        [*command, "I loved every minute."], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["label"] in {"negative", "neutral", "positive"}


def test_metrics_count_the_calls(service: Service) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.metrics}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    handled = [line for line in text.splitlines() if line.startswith("grpc_server_handled_total{")]
    assert any('grpc_method="Classify"' in line and not line.endswith(" 0.0") for line in handled)
