"""Does the server keep its memory, threads, event loop and books over a long time under mixed load?

Question: after half an hour of short and long texts, batches, streams, callers who leave and a new bundle
every minute, is anything left behind?

How: a server process with a tiny real bundle on ONNX Runtime, and callers in this process, who pause between
their calls: without (--pause 0) a tiny model is never what they wait for, and the lag is that of a queue.
Every minute another bundle is written in the place of the served one, and the server swaps it in. Resident
memory, threads and open files are read each second; they are compared as medians of the first and the last
quarter after the warm-up, a fifth of the run. At the end everybody leaves, and the books must be in balance.

Output: a table with each rule, what was found and whether it holds; a JSON file with every sample in
benchmarks/results/. Exit code 0 when all rules hold, 1 when one does not.

    python -m benchmarks.soak --minutes 30
    python -m benchmarks.soak --minutes 1 --swap-seconds 15       # does it still work?
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.record import RESULTS, asked, write_record
from benchmarks.served import percentile, scraped, start, total
from serving.calls import CallFailed, Failure
from serving.client import AsyncClient
from serving.types import Item, StreamOrder

WARMUP, GROWTH, LAG = 0.2, 0.02, 0.020
THREADS = 1  # of the engine
WORDS = ("good", "bad", "film", "plot", "the", "of", "worth", "every", "minute", "not", "🙂", "déjà")
EXPECTED = {"CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}


@dataclass
class Seen:
    """What callers were told, and what the server's process was seen to use."""

    codes: Counter[str] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    swaps: int = 0


def text(rng: random.Random) -> str:
    """Mostly short, sometimes far too long, now and then empty."""
    kind = rng.random()
    count = 0 if kind < 0.02 else rng.randint(1, 20) if kind < 0.8 else rng.randint(20, 2000)
    return " ".join(rng.choices(WORDS, k=count))


async def one(client: AsyncClient, rng: random.Random, seen: Seen) -> None:
    """One call of a kind that chance chooses; a part of the callers leave before the answer comes."""
    kind = rng.random()
    if kind < 0.5:
        work = client.classify(
            text(rng), domain=rng.choice(("", "imdb", "mars")), deadline=rng.choice((30, 0.05))
        )
        task = asyncio.create_task(told(work))
    elif kind < 0.75:
        items = [Item(text(rng), id=str(n)) for n in range(rng.randint(1, 60))]
        task = asyncio.create_task(told(client.classify_batch(items)))
    else:
        task = asyncio.create_task(streamed(client, rng, rng.choice(list(StreamOrder))))
    if rng.random() < 0.15:
        await asyncio.sleep(rng.random() * 0.05)
        task.cancel()
    found = await asyncio.gather(task, return_exceptions=True)
    code = found[0] if isinstance(found[0], str) else type(found[0]).__name__
    seen.codes["CANCELLED" if code == "CancelledError" else code] += 1


async def told(work: Any) -> str:
    """The status of a call."""
    try:
        await work
    except CallFailed as error:
        return error.failure.code.name
    return "OK"


async def streamed(client: AsyncClient, rng: random.Random, order: StreamOrder) -> str:
    """A stream of up to 200 texts, each of which must come back once."""
    count = rng.randint(1, 200)

    async def items() -> AsyncIterator[Item]:
        for n in range(count):
            yield Item(text(rng), id=str(n))

    back: Counter[str] = Counter()
    try:
        async for identity, answer in client.classify_stream(items(), order=order):
            back[identity] += 1
            if isinstance(answer, Failure) and answer.code.name not in EXPECTED:
                return f"item {answer.code.name}"
    except CallFailed as error:
        return error.failure.code.name
    return "OK" if back == Counter(map(str, range(count))) else "WRONG ITEMS"


async def callers(target: str, end: float, seen: Seen, count: int, pause: float) -> None:
    """Callers who call until the end, with pauses of `pause` seconds in the mean."""

    async def caller(n: int) -> None:
        rng = random.Random(n)
        async with AsyncClient(target, attempts=1) as client:
            while time.monotonic() < end:
                await one(client, rng, seen)
                await asyncio.sleep(rng.expovariate(1 / pause) if pause else 0)

    await asyncio.gather(*(caller(n) for n in range(count)))


async def swaps(models: Path, spare: Path, end: float, seen: Seen, every: float) -> None:
    """Let another bundle take the place of the served one, file by file, the manifest last."""
    turn = 0
    while time.monotonic() + every < end:
        await asyncio.sleep(every)
        turn += 1
        source = spare / str(turn % 2)
        for path in sorted(source.iterdir(), key=lambda path: path.name == "manifest.json"):
            if path.is_file():
                aside = models / f"{path.name}.new"
                shutil.copyfile(path, aside)
                aside.replace(models / path.name)
        seen.swaps += 1


async def watch(process: psutil.Process, end: float, seen: Seen) -> None:
    """Look at the process each second."""
    while time.monotonic() < end:
        seen.resident.append(process.memory_info().rss)
        seen.threads.append(process.num_threads())
        seen.files.append(process.num_fds())
        await asyncio.sleep(1)


def compared(samples: Sequence[int]) -> tuple[float, float]:
    """Medians of the first and the last quarter after the warm-up."""
    kept = samples[int(len(samples) * WARMUP) :]
    quarter = max(1, len(kept) // 4)
    return median(kept[:quarter]), median(kept[-quarter:])


def rules(seen: Seen, series: dict[str, float], lag: float) -> list[tuple[str, str, bool]]:
    """Each rule, what was found, whether it holds."""
    begun = total(series, "grpc_server_started_total")
    handled = total(series, "grpc_server_handled_total")
    first, last = (round(value / 2**20, 1) for value in compared(seen.resident))
    growth = last / first - 1
    threads, files = compared(seen.threads), compared(seen.files)
    odd = {code: count for code, count in seen.codes.items() if code not in EXPECTED | {"OK"}}
    waiting = total(series, "stratified_queue_items")
    swapped = total(series, "stratified_model_swaps_total", outcome="swapped")
    return [
        ("callers saw only what they caused", f"{dict(seen.codes)}", not odd),
        ("started = handled, by code", f"{begun:.0f} = {handled:.0f}", begun == handled),
        ("nothing waits", f"{waiting:.0f} items", waiting == 0),
        ("memory after warm-up grows < 2 %", f"{first} → {last} MiB ({growth:+.2%})", growth < GROWTH),
        ("no thread left", "{:g} → {:g}".format(*threads), threads[1] <= threads[0]),
        ("no file left open", "{:g} → {:g}".format(*files), files[1] <= files[0]),
        ("event-loop lag p99 ≤ 20 ms", f"≤ {1000 * lag:g} ms", lag <= LAG),
        ("every bundle swapped in", f"{swapped:.0f} of {seen.swaps}", swapped == seen.swaps),
    ]  # fmt: skip


def bundles(folder: Path) -> tuple[Path, Path]:
    """A served bundle, and two others to swap in, with ONNX exports so that torch does not count."""
    from stratified_models.onnx_export import export_onnx
    from stratified_models.testing import tiny_bundle

    for name, seed in (("served", 0), ("0", 1), ("1", 2)):
        path = (
            folder / ("models" if name == "served" else "spare") / ("routing" if name == "served" else name)
        )
        tiny_bundle(path, variant="routing", seed=seed)
        export_onnx(path)
    return folder / "models" / "routing", folder / "spare"


async def soak(
    models: Path, spare: Path, log: Path, options: argparse.Namespace
) -> tuple[Seen, dict[str, Any]]:
    """Run; what was seen, and the state of the server when it is quiet again."""
    flags = ["--engine", "onnx", "--threads", str(THREADS), "--watch-seconds", "2", "--settle-seconds", "0"]
    process, ports = start(models, log, *flags)
    seen, inside = Seen(), psutil.Process(process.pid)
    target = f"127.0.0.1:{ports['port']}"
    try:
        end = time.monotonic() + 60 * options.minutes
        await asyncio.gather(
            callers(target, end, seen, options.callers, options.pause),
            swaps(models, spare, end, seen, options.swap_seconds),
            watch(inside, end, seen),
        )
        await asyncio.sleep(15)  # the last swap, and the calls of those who left
        series = scraped(ports["metrics_port"])
        lag = percentile(series, "stratified_event_loop_lag_seconds", 0.99)
        found = rules(seen, series, lag)
        process.terminate()
        code = await asyncio.to_thread(process.wait, 60)
        found.append(("drains and exits with 0", str(code), code == 0))
        return seen, {"rules": found, "calls": total(series, "grpc_server_handled_total")}
    finally:
        if process.poll() is None:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--swap-seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between a caller's calls")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        models, spare = bundles(Path(name))
        seen, end = asyncio.run(soak(models, spare, Path(name) / "log", options))
    calls = f"{end['calls']:.0f} calls"
    print(f"{options.minutes:g} minutes, {options.callers} callers, {calls}, {seen.swaps} swaps")
    for rule, found, holds in end["rules"]:
        print(f"{'holds ' if holds else 'BROKEN'}  {rule:<36} {found}")
    record = {
        **asked(options),
        "engine_threads": THREADS,
        "load_average": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "calls": end["calls"],
        "rules": [{"rule": rule, "found": found, "holds": holds} for rule, found, holds in end["rules"]],
        "resident": seen.resident,
        "threads": seen.threads,
        "files": seen.files,
    }
    print(write_record("soak", record, out=options.out))
    return 0 if all(holds for _, _, holds in end["rules"]) else 1


if __name__ == "__main__":
    sys.exit(main())
