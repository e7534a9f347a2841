"""The examples that are no Python: run where their tool is; their requests are sent as they stand anyway."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2

from protos.stratified.v1 import model_pb2, sentiment_pb2
from tests.examples.conftest import ROOT

EXAMPLES = ROOT / "examples"
KNOWN = (sentiment_pb2, model_pb2, health_pb2)  # their import puts the contracts into the pool


def send(target: str, method: str, texts: list[str]) -> list[Any]:
    """Send requests, written as JSON, to a method that is named as service/method; its replies."""
    service, name = method.split("/")
    described = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    kinds = [message_factory.GetMessageClass(d) for d in (described.input_type, described.output_type)]
    requests = [json_format.Parse(text, kinds[0]()) for text in texts]
    with grpc.insecure_channel(target) as channel:
        coders = (kinds[0].SerializeToString, kinds[1].FromString)
        if described.client_streaming:
            call = channel.stream_stream(f"/{method}", *coders)
            return list(call(iter(requests), timeout=30))
        return [channel.unary_unary(f"/{method}", *coders)(request, timeout=30) for request in requests]


def calls() -> list[tuple[str, list[str]]]:
    """Method and requests of each line of grpcurl.sh."""
    text = (EXAMPLES / "grpcurl.sh").read_text(encoding="utf-8")
    found = re.findall(r"^grpcurl -plaintext -d '(.*)' \"\$target\" (\S+)$", text, re.M)
    assert len(found) == 5
    return [(method, re.split(r"(?<=\}) (?=\{)", data)) for data, method in found]


@pytest.mark.parametrize(("method", "texts"), calls(), ids=[method for method, _ in calls()])
def test_requests_of_grpcurl_are_answered(target: str, method: str, texts: list[str]) -> None:
    replies = send(target, method, texts)
    assert replies
    assert replies[0].ByteSize() > 0


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl(target: str) -> None:
    done = subprocess.run(
        [EXAMPLES / "grpcurl.sh", target], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "SERVING" in done.stdout


def test_the_request_of_k6_is_answered(target: str) -> None:
    text = (EXAMPLES / "k6.js").read_text(encoding="utf-8")
    (request,) = re.findall(r"const REQUEST = (\{.*\});", text)
    (method,) = re.findall(r'client\.invoke\("([^"]+)"', text)
    (reply,) = send(target, method, [json.dumps(json.loads(request))])
    assert reply.result.label


@pytest.mark.skipif(shutil.which("k6") is None, reason="k6 is not installed")
def test_k6(target: str) -> None:
    command = ["k6", "run", "-e", f"TARGET={target}", "-e", "RATE=2", "--duration", "3s", "--vus", "1"]
    done = subprocess.run(
        [*command, EXAMPLES / "k6.js"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_scripts_are_javascript(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "k6.js", tmp_path / "k6.mjs")
    for script in (EXAMPLES / "node" / "classify.js", tmp_path / "k6.mjs"):
        subprocess.run(["node", "--check", script], check=True, timeout=60)


@pytest.mark.skipif(
    not (EXAMPLES / "node" / "node_modules").is_dir(), reason="examples/node: run `npm install` there first"
)
def test_node(target: str) -> None:
    done = subprocess.run(
        ["node", EXAMPLES / "node" / "classify.js", target],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    one, many, refused = done.stdout.splitlines()
    assert set(json.loads(one)) == {"label", "score", "domain"}
    assert len(json.loads(many)) == 3
    assert "empty" in json.loads(many)[1]
    assert refused == "INVALID_ARGUMENT"


def test_the_compose_file_that_is_spoken_of_starts_the_service() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))["services"]
    assert {"train", "serve"} <= set(services)
