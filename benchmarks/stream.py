"""Does a stream cost the server memory, however many messages go through it?

Question: with one stream that is never empty, does the resident memory of the server, or of its client, grow
with the messages that have gone through?

How: a server process with a tiny real bundle on ONNX Runtime, and one `ClassifyStream` of short texts from
this process. Both processes are read each second; what counts is the median of the last tenth of the messages
against that of the second tenth, in which everything that is made lazily is there.

Output: messages a second, memory of both at each tenth; a JSON file in benchmarks/results/. Exit code 1 when
one of them grew by more than 2 %, or an answer is missing.

    python -m benchmarks.stream --messages 1000000       # some minutes
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.record import RESULTS, asked, write_record
from benchmarks.served import start
from serving.client import AsyncClient
from serving.types import Classification, Item, StreamOrder

GROWTH = 0.02
PARTS = 10
TEXTS = ("good", "bad film", "worth every minute", "not the plot of the film")


async def streamed(target: str, messages: int, server: psutil.Process) -> dict[str, Any]:
    """One stream; memory of both sides by tenth of the messages, in MiB."""
    mine = psutil.Process()
    sides = {"server": server, "client": mine}
    seen: dict[str, list[list[float]]] = {name: [[] for _ in range(PARTS)] for name in sides}
    answered = 0

    async def items() -> AsyncIterator[Item]:
        for n in range(messages):
            yield Item(TEXTS[n % len(TEXTS)], id=str(n))

    async def watch() -> None:
        while True:
            part = min(PARTS - 1, answered * PARTS // messages)
            for name, process in sides.items():
                seen[name][part].append(process.memory_info().rss / 2**20)
            await asyncio.sleep(1)

    began = time.monotonic()
    watching = asyncio.create_task(watch())
    async with AsyncClient(target, deadline=36_000) as client:
        async for _, answer in client.classify_stream(items(), order=StreamOrder.AS_COMPLETED):
            answered += isinstance(answer, Classification)
    watching.cancel()
    memory = {
        name: [round(median(part), 1) if part else None for part in parts] for name, parts in seen.items()
    }
    return {"answered": answered, "seconds": round(time.monotonic() - began, 1), "memory": memory}


def judged(found: dict[str, Any], messages: int) -> list[tuple[str, str, bool]]:
    """Each rule, what was found, whether it holds."""
    rules = [
        ("every message is answered", f"{found['answered']} of {messages}", found["answered"] == messages)
    ]
    for name, parts in found["memory"].items():
        known = [part for part in parts[1:] if part is not None] or [0.0]
        growth = known[-1] / known[0] - 1 if known[0] else 0.0
        told = f"{known[0]} → {known[-1]} MiB ({growth:+.2%})"
        rules.append((f"memory of the {name} grows < 2 %", told, growth < GROWTH))
    return rules


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the samples."""
    from stratified_models.onnx_export import export_onnx
    from stratified_models.testing import tiny_bundle

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models" / "routing"
        tiny_bundle(models, variant="routing", seed=0)
        export_onnx(models)
        flags = ["--engine", "onnx", "--threads", "1", "--watch-seconds", "0", "--settle-seconds", "0"]
        process, ports = start(models, Path(name) / "log", *flags)
        try:
            target = f"127.0.0.1:{ports['port']}"
            found = asyncio.run(streamed(target, options.messages, psutil.Process(process.pid)))
        finally:
            process.terminate()
            process.wait(60)
    rules = judged(found, options.messages)
    print(f"{options.messages} messages in {found['seconds']} s; MiB by tenth: {found['memory']}")
    for rule, what, holds in rules:
        print(f"{'holds ' if holds else 'BROKEN'}  {rule:<36} {what}")
    table = [{"rule": rule, "found": what, "holds": holds} for rule, what, holds in rules]
    print(write_record("stream", {"options": asked(options), **found, "rules": table}, out=options.out))
    return 0 if all(holds for _, _, holds in rules) else 1


if __name__ == "__main__":
    sys.exit(main())
