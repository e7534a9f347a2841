"""What is answered in time when more comes than can be computed, and how soon is the rest turned away?

Question: with callers who come whether or not earlier ones were answered (open loop), at 50, 100, 150 and
300 % of what the server can carry, how many answers a second arrive within the deadline; how long does a
refusal take, and does it say when to come back; how soon is a lone caller answered when the flood ends; and
when half of 200 callers leave, do the others get their own answers, and is nothing computed for those who
left?

How: the server is a process of its own on real weights, and the load comes from a third process, so that
neither waits for the other's interpreter; each has a core of its own (with `--no-pin` they share all cores).
Capacity is measured first, through one stream that is never empty. The generator's lag (when a call left,
less when it should have) is measured with each load, and against a null server that answers at once: beyond
some milliseconds the generator, not the server, is what is measured. Retries are off.

Output: a table, and a JSON file in benchmarks/results/. Exit code 1 when goodput at 150 % is below 95 % of
its peak, or the 99th percentile of refusals is above 10 ms, or one of the other promises does not hold.

    python -m benchmarks.overload --models results/hf_trainer_stratified --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from benchmarks.processes import cores, pinned
from benchmarks.record import RESULTS, asked, in_ms, write_record
from benchmarks.served import scraped, start, total
from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.client import AsyncClient
from serving.types import Classification, Item, StreamOrder

SHARES = (0.5, 1.0, 1.5, 3.0)
PUSHBACK = "grpc-retry-pushback-ms"
WORDS = ("good", "bad", "film", "plot", "the", "of", "worth", "every", "minute", "not", "drags", "ending")
NO_RETRIES = [("grpc.enable_retries", 0)]


def texts(count: int, seed: int) -> list[str]:
    """Mixed lengths, about 3 to 120 words."""
    rng = random.Random(seed)
    lengths = (min(120, max(3, round(rng.lognormvariate(2.8, 0.8)))) for _ in range(count))
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


async def capacity(target: str, seconds: float) -> float:
    """Texts a second through one stream that is never empty."""
    end = time.monotonic() + seconds

    async def items() -> AsyncIterator[Item]:
        for text in texts(1_000_000 if seconds > 1e4 else 20_000, 1):
            if time.monotonic() > end:
                return
            yield Item(text)

    count, began = 0, 0.0
    async with AsyncClient(target) as client:
        async for _ in client.classify_stream(items(), order=StreamOrder.AS_COMPLETED):
            began = began or time.monotonic()
            count += 1
    return count / (time.monotonic() - began)


async def flood(target: str, rate: float, seconds: float, deadline: float, seed: int) -> dict[str, Any]:
    """Poisson arrivals; what became of each, when it left, how long it took."""
    rng, sent = random.Random(seed), texts(2000, seed)
    calls: list[dict[str, Any]] = []
    async with grpc.aio.insecure_channel(target, options=NO_RETRIES) as channel:
        stub: Any = sentiment_pb2_grpc.SentimentServiceStub(channel)

        async def call(text: str, lag: float) -> None:
            began = time.monotonic()
            pushed = None
            try:
                await stub.Classify(sentiment_pb2.ClassifyRequest(text=text), timeout=deadline)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                pushed = dict(error.trailing_metadata() or ()).get(PUSHBACK)
            calls.append({"code": code, "took": time.monotonic() - began, "lag": lag, "pushed": pushed})

        tasks, began, due = [], time.monotonic(), 0.0
        while due < seconds:
            due += rng.expovariate(rate)
            if (wait := began + due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(call(rng.choice(sent), time.monotonic() - began - due)))
        await asyncio.gather(*tasks)
        lone = []
        for _ in range(5):  # the flood is over
            before = time.monotonic()
            await stub.Classify(sentiment_pb2.ClassifyRequest(text="good film"), timeout=30)
            lone.append(time.monotonic() - before)
    return {"calls": calls, "lone": lone, "seconds": seconds}


def told(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one flood, and every latency of it in milliseconds."""
    calls = found["calls"]
    refused = sorted(call["took"] for call in calls if call["pushed"] is not None)
    fine = sorted(call["took"] for call in calls if call["code"] == "OK")
    lags = sorted(call["lag"] for call in calls)
    usable = [call for call in calls if call["pushed"] is not None and int(call["pushed"]) > 0]
    return {
        "offered": round(len(calls) / found["seconds"], 1),
        "goodput": round(len(fine) / found["seconds"], 1),
        "codes": dict(Counter(call["code"] for call in calls)),
        "p50_ms": _ms(fine, 0.5),
        "p99_ms": _ms(fine, 0.99),
        "refused_p50_ms": _ms(refused, 0.5),
        "refused_p99_ms": _ms(refused, 0.99),
        "with_pushback": len(usable),
        "generator_lag_p99_ms": _ms(lags, 0.99),
        "first_lone_ms": round(1000 * found["lone"][0], 1),
        "lone_ms": round(1000 * median(found["lone"]), 1),
        "samples_ms": {"answered": in_ms(fine), "refused": in_ms(refused)},
    }


def _ms(values: Sequence[float], share: float) -> float | None:
    return round(1000 * values[int(share * (len(values) - 1))], 1) if values else None


async def half_leave(target: str, metrics: int) -> dict[str, Any]:
    """200 callers, of whom every second one leaves at once."""
    sent = texts(200, 9)
    async with AsyncClient(target, attempts=1, deadline=60) as client:
        alone = [await client.classify(text) for text in sent]
        before = scraped(metrics)
        tasks = [asyncio.create_task(client.classify(text)) for text in sent]
        await asyncio.sleep(0.1)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)
        after = scraped(metrics)
    stayed = zip(alone[1::2], found[1::2], strict=True)
    right = sum(isinstance(one, Classification) and one.label == other.label for other, one in stayed)
    computed = total(after, "stratified_batch_items_sum") - total(before, "stratified_batch_items_sum")
    dropped = total(after, "stratified_dropped_total") - total(before, "stratified_dropped_total")
    return {"stayed_and_right": right, "of": 100, "computed": computed, "dropped": dropped}


def elsewhere(*words: str) -> Any:
    """The same program in a process of its own; what it prints as JSON."""
    command = [sys.executable, "-m", "benchmarks.overload", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


async def null_server() -> None:
    """gRPC that answers at once, and says on which port; until it is killed."""

    class Null(sentiment_pb2_grpc.SentimentServiceServicer):
        async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC's name
            return sentiment_pb2.ClassifyResponse()

        async def BatchClassify(self, request: Any, context: Any) -> Any:  # noqa: N802  as above
            return sentiment_pb2.BatchClassifyResponse()

        async def ClassifyStream(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
            async for _ in request_iterator:
                yield sentiment_pb2.ClassifyStreamResponse()

    server = grpc.aio.server()
    sentiment_pb2_grpc.add_SentimentServiceServicer_to_server(Null(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def against_nothing(rate: float, seconds: float, deadline: float, *, core: set[int] | None) -> dict[str, Any]:
    """The generator's own limits, at the highest rate of the benchmark."""
    command = [sys.executable, "-m", "benchmarks.overload", "--null"]
    with pinned(core):
        null = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with null as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        found = elsewhere("--flood", f"127.0.0.1:{port}", str(rate), str(seconds), str(deadline))
        process.kill()
    return told(found)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, on one server."""
    core, other = cores() if options.pin else (None, None)
    flags = ["--threads", str(options.threads), "--watch-seconds", "0", "--settle-seconds", "0"]
    with tempfile.TemporaryDirectory() as folder:
        with pinned(core):
            process, ports = start(options.models, Path(folder) / "log", *flags)
        try:
            with pinned(other):
                found = flooded(f"127.0.0.1:{ports['port']}", ports["metrics_port"], options)
        finally:
            process.kill()
            process.wait()
    most, seconds = SHARES[-1] * found["capacity"], min(10.0, options.seconds)
    with pinned(other):
        return {**found, "null": against_nothing(most, seconds, options.deadline, core=core)}


def flooded(target: str, metrics: int, options: argparse.Namespace) -> dict[str, Any]:
    """Capacity, a lone caller, every share of the capacity, and the callers who leave."""
    full = asyncio.run(capacity(target, options.seconds))
    idle = elsewhere("--flood", target, "2", "5", str(options.deadline))
    rows = []
    for share in SHARES:
        words = (target, str(share * full), str(options.seconds), str(options.deadline))
        rows.append({"share": share, **told(elsewhere("--flood", *words))})
    half = asyncio.run(half_leave(target, metrics))
    return {"capacity": round(full, 1), "idle": told(idle), "table": rows, "half": half}


def judged(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Each promise, what was found, whether it holds."""
    rows = {row["share"]: row for row in found["table"]}
    good, peak = rows[1.5]["goodput"], max(row["goodput"] for row in rows.values())
    refusals, lag = rows[1.5]["refused_p99_ms"], found["null"]["generator_lag_p99_ms"] or 0
    first, idle, half = rows[3.0]["first_lone_ms"], found["idle"]["p99_ms"], found["half"]
    shed = sum(row["codes"].get("RESOURCE_EXHAUSTED", 0) for row in rows.values())
    pushed = sum(row["with_pushback"] for row in rows.values())
    right, known = half["stayed_and_right"], half["computed"] + half["dropped"]
    computed = f"{half['computed']:.0f} computed, {half['dropped']:.0f} dropped"
    return [
        ("goodput at 150 % ≥ 95 % of its peak", f"{good} of {peak}", good >= 0.95 * peak),
        ("refusals p99 ≤ 10 ms", f"{refusals} ms", refusals is not None and refusals <= 10),
        ("what is shed has a usable pushback", f"{pushed} with, {shed} shed", pushed >= shed),
        ("lone caller after the flood as when idle", f"{first} ms, idle p99 {idle} ms", first <= 2 * idle),
        ("half of 200 leave: the others are answered", f"{right} of 100", right == 100),
        ("… and who waited and left is not computed", computed, known <= 200 and half["dropped"] > 0),
        ("the generator keeps up (null server, p99)", f"{lag} ms", lag < 20),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("results/hf_trainer_stratified"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1, help="of the engine; leave a core to the load")
    parser.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="server on one core, load on another",
    )
    parser.add_argument("--flood", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--null", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.null:
        asyncio.run(null_server())
        return 0
    if options.flood:
        target, *numbers = options.flood
        rate, seconds, deadline = map(float, numbers)
        print(json.dumps(asyncio.run(flood(target, rate, seconds, deadline, 3))))
        return 0
    load = os.getloadavg()[0]
    found = measured(options)
    print(f"capacity {found['capacity']} texts/s; idle p50 {found['idle']['p50_ms']} ms")
    for row in found["table"]:
        print(
            f"{row['share']:>4.0%}  "
            + "  ".join(f"{key} {value}" for key, value in row.items() if key not in ("share", "samples_ms"))
        )
    rules = judged(found)
    for rule, what, holds in rules:
        print(f"{'holds ' if holds else 'BROKEN'}  {rule:<46} {what}")
    kept = {key: value for key, value in asked(options).items() if key not in ("flood", "null")}
    record = {
        **kept,
        "load_average": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        **found, "rules": [{"rule": rule, "found": what, "holds": holds} for rule, what, holds in rules],
    }  # fmt: skip
    print(write_record("overload", record, out=options.out))
    return 0 if all(holds for _, _, holds in rules) else 1


if __name__ == "__main__":
    sys.exit(main())
