"""The load: every text is sent once, answers and refusals are told apart, overload does not wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.load import DEADLINE, Http, closed, main, opened


async def test_callers_share_the_texts() -> None:
    seen: list[str] = []
    at_once = peak = 0

    async def call(text: str) -> bool:
        nonlocal at_once, peak
        at_once += 1
        peak = max(peak, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        seen.append(text)
        return text != "3"

    answers = await closed(call, [str(place) for place in range(20)], callers=4)
    assert sorted(seen, key=int) == [str(place) for place in range(20)]
    assert peak == 4
    assert sum(bool(answer["good"]) for answer in answers) == 19


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    gate, started = asyncio.Event(), []

    async def call(text: str) -> bool:
        started.append(text)
        if len(started) == 10:
            gate.set()
        await gate.wait()
        return True

    answers = await opened(call, [str(place) for place in range(10)], rate=1e6, deadline=30.0)
    assert len(answers) == 10
    assert all(answer["good"] for answer in answers)


async def test_an_answer_after_the_deadline_is_none() -> None:
    async def call(text: str) -> bool:
        await asyncio.Event().wait()
        return True

    [answer] = await opened(call, ["a"], rate=1e6, deadline=0.01)
    assert not answer["good"]


@asynccontextmanager
async def server(replies: list[bytes], seen: list[bytes]) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                seen.append(await reader.readexactly(length))
                writer.write(replies.pop(0))
        except asyncio.IncompleteReadError:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False),
        (b"nothing\r\n\r\n", False),
    ],
)
async def test_http_answers(reply: bytes, good: bool) -> None:
    seen: list[bytes] = []
    async with server([reply, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], seen) as target:
        http = Http(target, "/predict", '{"text": TEXT}')
        assert await http.call('say "x"') is good
        assert await http.call("again") is True  # on the same connection, or on a new one after a fault
    assert seen == [b'{"text": "say \\"x\\""}', b'{"text": "again"}']


@contextmanager
def service_that_notes(left: list[float]) -> Iterator[str]:
    """Our gRPC, which refuses each text and notes how many seconds its caller still waits; its target."""

    def classify(_: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        raise AssertionError("abort raises")

    handlers: dict[str, Any] = {"Classify": grpc.unary_unary_rpc_method_handler(classify)}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("stratified.v1.SentimentService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_the_server_learns_the_deadline_in_the_open_loop_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, left = tmp_path / "texts.json", list[float]()
    texts.write_text(json.dumps(["a", "b", "c"]), encoding="utf-8")
    with service_that_notes(left) as target:
        asked = ["--target", target, "--texts", str(texts)]
        assert main([*asked, "--rate", "1000", "--deadline", "7"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["answered"], len(found["refusals"]), len(left)) == (0, 3, 3)
        assert all(5 < seconds < 8 for seconds in left)
        left.clear()
        assert main([*asked, "--callers", "1"]) == 0
    assert all(DEADLINE - 5 < seconds < DEADLINE + 1 for seconds in left)


async def test_nobody_there_is_no_answer() -> None:
    from benchmarks.processes import free_ports

    [port] = free_ports(1)
    assert await Http(f"127.0.0.1:{port}", "/", "TEXT").call("a") is False
