"""The load: callers in a process of their own, who send texts and note when each answer came.

Closed loop: `--callers` of them, each with one text under way, until all texts were answered. Open loop:
texts arrive at random (Poisson) at `--rate` a second, whether or not earlier ones were answered. It speaks
our gRPC, one call a text or one stream, and plain HTTP with a JSON body for peers. It prints one JSON object:
seconds, answers in time, errors, and every latency.

    python -m benchmarks.load --target 127.0.0.1:50051 --texts texts.json --callers 8
    python -m benchmarks.load --target 127.0.0.1:8000 --http /predict --body '{"text": TEXT}' --texts t.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

Call = Callable[[str], Awaitable[bool]]  # whether the answer was one

DEADLINE = 30.0


class Http:
    """One kept-alive HTTP/1.1 connection at a time for each caller: the least work that answers need."""

    def __init__(self, target: str, path: str, body: str) -> None:
        self.host, _, port = target.partition(":")
        self.port, self.path, self.body = int(port), path, body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, text: str) -> bool:
        """Send one text; True for a 200."""
        data = self.body.replace("TEXT", json.dumps(text)).encode()
        try:
            pair = self._free.pop() if self._free else await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        reader, writer = pair
        try:
            head = (
                f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n"
            )
            writer.write(head.encode() + data)
            status, headers = await self._head(reader)
            if headers.get("transfer-encoding") == "chunked":
                while size := int((await reader.readline()).strip() or b"0", 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
            else:
                await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
            writer.close()
            return False
        except asyncio.CancelledError:  # half an answer may still be on its way: not to be used again
            writer.close()
            raise
        self._free.append(pair)
        return status == 200

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        status = int((await reader.readline()).split()[1])
        headers = {}
        while (line := (await reader.readline()).decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip().lower()
        return status, headers


async def grpc_call(target: str, stack: AsyncExitStack, *, deadline: float | None = None) -> Call:
    """One unary call a text, without retries: a refusal is an answer of its own. `deadline`, in seconds, is
    told the server with each call: it refuses what it cannot answer by then.
    """
    from serving.client import AsyncClient, CallFailed

    client = await stack.enter_async_context(AsyncClient(target, deadline=DEADLINE, attempts=1))

    async def call(text: str) -> bool:
        try:
            await client.classify(text, deadline=deadline)
        except CallFailed:
            return False
        return True

    return call


async def closed(call: Call, texts: Sequence[str], *, callers: int) -> list[dict[str, float]]:
    """Every caller takes the next text when its last one was answered."""
    waiting, answers = iter(texts), []

    async def caller() -> None:
        for text in waiting:
            started = time.perf_counter()
            good = await call(text)
            answers.append({"seconds": time.perf_counter() - started, "good": good})

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answers


async def opened(call: Call, texts: Sequence[str], *, rate: float, deadline: float) -> list[dict[str, float]]:
    """Texts arrive at random; an answer after the deadline is none."""
    drawn, answers = random.Random(0), []

    async def one(text: str) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(deadline):
                good = await call(text)
        except TimeoutError:
            good = False
        answers.append({"seconds": time.perf_counter() - started, "good": good})

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        for text in texts:
            due += drawn.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(text))
    return answers


async def streamed(target: str, texts: Sequence[str]) -> list[dict[str, float]]:
    """All texts through one stream, answered as they are done."""
    from serving.calls import Failure
    from serving.client import AsyncClient
    from serving.types import Item, StreamOrder

    answers = []

    async def items() -> AsyncIterator[Item]:
        for place, text in enumerate(texts):
            yield Item(text, id=str(place))

    async with AsyncClient(target) as client:
        started = time.perf_counter()
        async for _, answer in client.classify_stream(items(), order=StreamOrder.AS_COMPLETED):
            good = not isinstance(answer, Failure)
            answers.append({"seconds": time.perf_counter() - started, "good": good})
    return answers


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Send all texts and sum up."""
    texts = json.loads(options.texts.read_text(encoding="utf-8"))
    async with AsyncExitStack() as stack:
        started = time.perf_counter()
        if options.stream:
            answers = await streamed(options.target, texts)
        else:
            http = Http(options.target, options.http, options.body) if options.http else None
            told = options.deadline if options.rate else None
            call = http.call if http else await grpc_call(options.target, stack, deadline=told)
            started = time.perf_counter()
            answers = (
                await opened(call, texts, rate=options.rate, deadline=options.deadline)
                if options.rate
                else await closed(call, texts, callers=options.callers)
            )
        seconds = time.perf_counter() - started
    good = [answer["seconds"] for answer in answers if answer["good"]]
    bad = [answer["seconds"] for answer in answers if not answer["good"]]
    return {
        "sent": len(texts),
        "answered": len(good),
        "seconds": seconds,
        "per_second": len(good) / seconds,
        "processor_seconds": time.process_time(),
        "latencies": good,
        "refusals": bad,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Send, and print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--texts", type=Path, required=True, help="a JSON list")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: texts a second")
    parser.add_argument("--deadline", type=float, default=1.0, help="open loop: seconds")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--http", default="", help="path of a peer")
    parser.add_argument("--body", default='{"text": TEXT}', help="JSON around TEXT")
    print(json.dumps(asyncio.run(run(parser.parse_args(arguments)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
