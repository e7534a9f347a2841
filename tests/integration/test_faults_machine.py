"""Faults of the machine under a server of its own process: memory, disk, clock; `make faults` runs them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.client import CallFailed, Client
from serving.types import Item
from tests.integration.processes import Served, served
from tests.integration.test_faults_heavy import answers
from tests.serving.files.test_run import objects

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HEAVY"), reason="heavy: run by make faults"),
    pytest.mark.timeout(600),
]


def whole(client: Client) -> str:
    """The status of one of the largest calls."""
    try:
        client.classify_batch([Item("a" * 30_000)] * 128)
    except CallFailed as error:
        return error.failure.code.name
    return "OK"


def test_an_allocation_that_fails_costs_the_callers_of_that_moment_alone() -> None:
    """A bound on the address space, as near as a process can come to a full memory without being killed."""
    with served() as server:
        before = answers(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (2**31, 2**31))
        with Client(server.target, deadline=30, attempts=1) as client:
            found = [whole(client) for _ in range(30)]
        assert set(found) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL"}
        assert answers(server) == before


def test_a_disk_that_is_full_keeps_what_is_done(tmp_path: Path) -> None:
    """A bound on the size of a file, which a write meets as it meets the end of a disk."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"word{n}\n" for n in range(2000)))
    with served() as server:
        command = [sys.executable, "-m", "serving.classify", "--target", server.target]
        command += ["--input", str(source), "--output", str(target)]
        limit = f"ulimit -f 400; exec {' '.join(command)}"  # blocks of 1,024 bytes
        cut = subprocess.run(["bash", "-c", limit], capture_output=True, text=True, check=False)
        assert cut.returncode == 2, cut.stderr
        assert "cannot be written: File too large" in cut.stderr
        assert not target.exists()
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        assert "going on after row" in again.stderr
    assert [row["row"] for row in objects(target)] == list(range(1, 2001))


def jump(server: Served) -> None:
    """Give the server's process another wall clock."""
    os.kill(server.process.pid, signal.SIGUSR1)
    time.sleep(0.3)


def await_stream(server: Served) -> None:
    """Until a stream has arrived there."""
    wanted = 'grpc_method="ClassifyStream",grpc_service="stratified.v1.SentimentService"'
    begun = f'grpc_server_started_total{{{wanted},grpc_type="bidi_stream"}} 1.0'
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page = urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5).read().decode()
        if begun in page:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {begun!r} within 30 s")


def test_a_clock_that_jumps_while_a_stream_runs_does_not_touch_its_deadline() -> None:
    """gRPC reckons what remains from the wall clock: set before the settings come, and between texts."""
    Message = sentiment_pb2.ClassifyStreamRequest
    with served() as server, grpc.insecure_channel(server.target) as channel:

        def messages() -> Iterator[sentiment_pb2.ClassifyStreamRequest]:
            await_stream(server)
            jump(server)
            yield Message(settings=sentiment_pb2.StreamSettings())
            for n in range(400):
                if n % 100 == 50:
                    jump(server)
                yield Message(item=sentiment_pb2.BatchItem(id=str(n), text=f"word{n % 7} film"))

        stub = sentiment_pb2_grpc.SentimentServiceStub(channel)
        replies = list(stub.ClassifyStream(messages(), timeout=60))
    assert [str(reply.error) for reply in replies if reply.WhichOneof("outcome") == "error"] == []
    assert len(replies) == 400
