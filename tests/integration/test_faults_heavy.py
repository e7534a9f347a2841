"""Faults that take a process of their own, or thousands of connections; `make faults` runs them.

SIGTERM and SIGKILL under load, floods at the level of HTTP/2, idle connections, the largest messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import socket
import struct
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.calls import failure_of
from serving.client import AsyncClient, CallFailed, Client
from serving.steady import SteadyStream
from serving.types import Classification, Item
from tests.integration.processes import Served, free_port, served

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HEAVY"), reason="heavy: run by make faults"),
    pytest.mark.timeout(600),
]
Request, BatchRequest = sentiment_pb2.ClassifyRequest, sentiment_pb2.BatchClassifyRequest
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
IDLE = 10_000


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field that is neither indexed nor compressed (RFC 7541, section 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


HEADERS = b"".join(
    literal(name, value)
    for name, value in (
        (":method", "POST"), (":scheme", "http"), (":path", "/stratified.v1.SentimentService/Classify"),
        (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"),
    )
)  # fmt: skip


def answers(server: Served, text: str = "good film") -> Classification:
    """A caller who does nothing wrong."""
    with Client(server.target, deadline=30) as client:
        return client.classify(text)


async def outcome(stub: Any, n: int, timeout: float) -> Any:  # noqa: ASYNC109  gRPC's own
    """The label, or the error, of one call."""
    try:
        reply = await stub.Classify(Request(text=f"word{n} more"), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return error
    return reply.result.label


async def load(server: Served, callers: int, until_: asyncio.Event, seen: list[Any]) -> None:
    """Callers without retries who call until told to stop, or until nobody listens any more."""
    async with grpc.aio.insecure_channel(server.target, options=[("grpc.enable_retries", 0)]) as channel:
        stub: Any = sentiment_pb2_grpc.SentimentServiceStub(channel)

        async def call(n: int) -> None:
            while not until_.is_set():
                seen.append(found := await outcome(stub, n, 30))
                if isinstance(found, grpc.aio.AioRpcError) and "Connection refused" in str(found.details()):
                    return

        await asyncio.gather(*(call(n) for n in range(callers)))


async def test_sigterm_under_load_loses_nothing() -> None:
    with served("--settle-seconds", "1", seconds_per_token=0.001) as server:
        seen: list[Any] = []
        stop = asyncio.Event()
        calling = asyncio.create_task(load(server, 50, stop, seen))
        await asyncio.sleep(2)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        stop.set()
        await asyncio.wait_for(calling, 60)
    errors = [entry for entry in seen if not isinstance(entry, str)]
    assert {error.code() for error in errors} <= {grpc.StatusCode.UNAVAILABLE}
    assert len(seen) - len(errors) > 200
    for error in errors:
        trailers = dict(error.trailing_metadata() or ())
        if blob := trailers.get("grpc-status-details-bin"):
            failure = failure_of(status_pb2.Status.FromString(blob))
            assert (failure.reason, "grpc-retry-pushback-ms" in trailers) == ("DRAINING", True)


async def at_random(server: Served, rate: float, until_: asyncio.Event, seen: list[Any]) -> None:
    """`rate` calls a second over 8 connections, without retries, from callers who wait for nobody."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(server.target, options=options) for _ in range(8)]
        stubs: list[Any] = [
            sentiment_pb2_grpc.SentimentServiceStub(await stack.enter_async_context(channel))
            for channel in channels
        ]

        async def call(n: int) -> None:
            seen.append(await outcome(stubs[n % 8], n, random.choice((1, 5, 30))))

        calls: list[asyncio.Task[None]] = []
        while not until_.is_set():
            calls.append(asyncio.create_task(call(len(calls))))
            await asyncio.sleep(random.expovariate(rate))
        await asyncio.gather(*calls)


@pytest.mark.parametrize("stop", range(5))
async def test_callers_at_random_see_a_stop_as_unavailable(stop: int) -> None:
    with served("--settle-seconds", "0.5", seconds_per_token=0.0002) as server:
        seen: list[Any] = []
        over = asyncio.Event()
        calling = asyncio.create_task(at_random(server, 400, over, seen))
        await asyncio.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        over.set()
        await asyncio.wait_for(calling, 60)
    errors = [entry for entry in seen if not isinstance(entry, str)]
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    told = [error for error in errors if "grpc-retry-pushback-ms" in dict(error.trailing_metadata() or ())]
    assert len(told) > 50
    gone = [error for error in errors if "failed to connect" in error.details()]
    # The rest were on the wire in the last instant, while the sockets closed.
    assert len(errors) - len(told) - len(gone) <= 10
    assert len(seen) - len(errors) > 200


async def test_sigkill_and_a_restart_cost_a_stream_time_and_no_answer() -> None:
    port = free_port()
    texts = [f"word{n} more" for n in range(3000)]
    with served(port=port, seconds_per_token=0.0002) as first:
        async with AsyncClient(first.target) as client, SteadyStream(client, patience=120) as stream:
            tasks = [asyncio.create_task(stream.classify(Item(text))) for text in texts]
            while sum(task.done() for task in tasks) < 300:  # noqa: ASYNC110  of another process
                await asyncio.sleep(0.02)
            first.process.kill()
            await asyncio.to_thread(first.process.wait)
            with served(port=port) as second:
                found = await asyncio.gather(*tasks)
                assert answers(second).label
    assert all(isinstance(answer, Classification) for answer in found)


async def test_a_killed_server_is_unavailable_and_then_answers_again() -> None:
    port = free_port()
    with served(port=port) as first:
        before = await asyncio.to_thread(answers, first)
        first.process.kill()
        first.process.wait()
        client = Client(f"127.0.0.1:{port}", attempts=1, deadline=5)
        with client, pytest.raises(CallFailed, match="UNAVAILABLE"):
            client.classify("good film")
    with served(port=port) as second:
        assert await asyncio.to_thread(answers, second) == before


def test_a_flood_of_resets_harms_nobody_else() -> None:
    with served() as server:
        before = answers(server)
        resident = server.resident
        told = Counter[str]()
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as peer:
                peer.settimeout(30)
                peer.sendall(PREFACE + frame(4, 0, 0, b""))
                try:
                    for stream in range(1, 40_001, 2):
                        peer.sendall(frame(1, 4, stream, HEADERS) + frame(3, 0, stream, struct.pack(">I", 8)))
                    told["whole"] += 1
                except OSError:
                    told["cut off"] += 1  # the server may end a connection that does this
            assert answers(server) == before
        assert server.process.poll() is None
        assert server.resident < resident + 200 * 2**20, (resident, server.resident, told)
        assert open_calls(server) == 0


def open_calls(server: Served, within: float = 20.0) -> float:
    """Calls that were begun and not handled, when it is quiet."""
    import urllib.request

    deadline = time.monotonic() + within
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10) as reply:
            lines = [line for line in reply.read().decode().splitlines() if 'grpc_method="Classify"' in line]
        begun = sum(float(line.split()[-1]) for line in lines if line.startswith("grpc_server_started_total"))
        handled = sum(
            float(line.split()[-1]) for line in lines if line.startswith("grpc_server_handled_total")
        )
        if begun == handled or time.monotonic() > deadline:
            return begun - handled
        time.sleep(0.5)


def test_ten_thousand_idle_connections() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < IDLE + 1000:
        pytest.skip(f"this machine allows {hard} open files a process")
    with served("--max-connection-age", "3600") as server:
        before = answers(server)
        resident = server.resident
        peers = []
        for _ in range(IDLE):
            peer = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            peer.sendall(PREFACE + frame(4, 0, 0, b""))
            peers.append(peer)
        assert answers(server) == before
        each = (server.resident - resident) / IDLE
        print(f"{IDLE} connections, {each / 1024:.0f} KiB each")
        assert each < 256 * 1024
        for peer in peers:
            peer.close()
        assert answers(server) == before
        assert open_calls(server) == 0


def test_more_connections_than_allowed_are_turned_away_and_the_others_answered() -> None:
    with served("--max-connections", "50") as server, Client(server.target, deadline=30) as client:
        before = client.classify("good film")
        peers = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(300)]
        for peer in peers:
            peer.sendall(PREFACE + frame(4, 0, 0, b""))
        time.sleep(1)
        assert client.classify("good film") == before
        for peer in peers:
            peer.close()
        time.sleep(1)
        assert answers(server) == before


def test_the_largest_messages_at_once_fit_a_bound_of_memory() -> None:
    """1,024 callers at once, 4 MB each, would be 4 GB: what is refused must not be kept."""
    with served() as server:
        before = answers(server)
        item = sentiment_pb2.BatchItem(text="a" * 30_000)
        request = BatchRequest(items=[item] * 128)
        assert 3_500_000 < request.ByteSize() < 4 * 1024 * 1024

        async def flood() -> Counter[str]:
            codes = Counter[str]()
            channels = [
                grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)])
                for _ in range(4)
            ]

            async def call(n: int) -> None:
                stub: Any = sentiment_pb2_grpc.SentimentServiceStub(channels[n % 4])
                try:
                    await stub.BatchClassify(request, timeout=60)
                    codes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    codes[error.code().name] += 1

            await asyncio.gather(*(call(n) for n in range(60)))
            for channel in channels:
                await channel.close()
            return codes

        codes = asyncio.run(flood())
        print(codes, f"{server.resident / 2**20:.0f} MiB")
        assert server.process.poll() is None
        assert codes.keys() <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
        assert answers(server) == before
