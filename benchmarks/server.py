"""What does the service add to its engine? And can the load carry more than either?

Question: of the texts a second that the bare engine computes offline (same texts, sorted by length, the best
token budget), how many does the whole service answer to many callers? And how much later does one caller get
an answer than from the engine in a loop?

How: the service runs on one core, the load on another, both as processes of their own. Bare loop and service
take turns, and ratios are of medians. A server that answers nothing but fixed bytes shows what the load can
carry. With `--variants`, the same for each variant: the strata's price as served.

    python -m benchmarks.server                                      # MiniLM, none, 300 texts
    python -m benchmarks.server --variants none moe --callers 32
    python -m benchmarks.server --shape tiny --texts 20 --rounds 1 --engine onnx --out /tmp
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import REAL, SHAPES, VARIANTS, make_bundle
from benchmarks.processes import (
    cores,
    free_ports,
    load,
    our_server,
    processor_seconds,
    running,
    wait_for_port,
)
from benchmarks.record import RESULTS, asked, write_record
from benchmarks.strata import batches_of
from benchmarks.texts import real_texts

BUDGETS = (128, 256, 512, 1024)
ALONE = 100  # texts of the single caller
THREADS = 1  # of the engine, bare and served


class Bare:
    """The engine in a loop, in this process, pinned to the server's core."""

    def __init__(self, bundle: Path, texts: Sequence[str], engine: str) -> None:
        from serving.engines.choice import Wishes
        from serving.loading import load as load_bundle

        wishes = Wishes(engine=engine, device="cpu", threads=THREADS)  # type: ignore[arg-type]  # of ENGINES
        loaded = load_bundle(bundle, wishes=wishes, clock=time.perf_counter, announce=lambda step: None)
        self.engine, self.encoder, self.texts = loaded.engine, loaded.encoder, texts
        self.name = loaded.engine.name
        self._batches = {budget: batches_of(texts, loaded.encoder, budget=budget) for budget in BUDGETS}
        seconds = {budget: self._pass(budget) for budget in BUDGETS for _ in range(2)}
        self.budget = min(seconds, key=seconds.__getitem__)

    def offline(self) -> float:
        """Texts a second, tokenising left out, in the best budget."""
        return len(self.texts) / self._pass(self.budget)

    def alone(self) -> float:
        """Median seconds of one text after the other, tokenising included."""
        from serving.types import EngineItem, Truncation

        taken = []
        for text in self.texts[:ALONE]:
            started = time.perf_counter()
            self.engine.run([EngineItem(self.encoder.encode(text, Truncation.HEAD).ids)])
            taken.append(time.perf_counter() - started)
        return median(taken)

    def _pass(self, budget: int) -> float:
        started = time.perf_counter()
        for batch in self._batches[budget]:
            self.engine.run(batch)
        return time.perf_counter() - started


def measure(
    bundle: Path, texts: Sequence[str], *, engine: str, callers: Sequence[int], rounds: int, folder: Path
) -> dict[str, Any]:
    """Samples of bare loop and service, by turns."""
    from os import sched_getaffinity, sched_setaffinity

    server_core, load_core = cores()
    whole, few = folder / "texts.json", folder / "few.json"
    whole.write_text(json.dumps(list(texts)), encoding="utf-8")
    few.write_text(json.dumps(list(texts[:ALONE])), encoding="utf-8")
    before = sched_getaffinity(0)
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    sched_setaffinity(0, server_core)
    try:
        bare = Bare(bundle, texts, engine)
        flags = ("--engine", bare.name, "--device", "cpu", "--threads", str(THREADS))
        with ExitStack() as stack:
            target, server = stack.enter_context(
                our_server(bundle, *flags, on=server_core, log=folder / "server.log")
            )
            ways: dict[str, Callable[[], dict[str, Any]]] = {
                f"{count} callers": partial(load, target, whole, "--callers", str(count), on=load_core)
                for count in callers
            }
            ways["one stream"] = lambda: load(target, whole, "--stream", on=load_core)
            for turn in range(rounds + 1):
                started = time.process_time()
                samples = {"bare offline": bare.offline()}
                samples["bare per processor second"] = len(texts) / (time.process_time() - started)
                samples["bare alone"] = bare.alone()
                alone = load(target, few, "--callers", "1", on=load_core)
                samples["served alone"] = median(alone["latencies"])
                for way, send in ways.items():
                    computed = processor_seconds(server)
                    answer = send()
                    samples[f"{way} per processor second"] = len(texts) / (
                        processor_seconds(server) - computed or float("inf")
                    )
                    samples[way] = answer["per_second"]
                    samples[f"{way} p50"] = median(answer["latencies"])
                    if answer["answered"] != answer["sent"]:
                        raise RuntimeError(
                            f"{way}: {answer['sent'] - answer['answered']} texts without answer"
                        )
                if turn:  # the first warms up
                    for name, value in samples.items():
                        note(name, value)
    finally:
        sched_setaffinity(0, before)
    return {"engine": bare.name, "budget": bare.budget, "ways": list(ways), "samples": found}


def null_rate(texts: Path, *, callers: int) -> float:
    """Texts a second that the load carries to a server that does nothing."""
    server_core, load_core = cores()
    [port] = free_ports(1)
    with running([sys.executable, "-m", "benchmarks.null_server", str(port)], on=server_core) as process:
        wait_for_port(process, port)
        rate: float = load(f"127.0.0.1:{port}", texts, "--callers", str(callers), on=load_core)["per_second"]
    return rate


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["none"])
    parser.add_argument("--engine", choices=["auto", "torch", "onnx", "openvino"], default="auto")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--bundles", type=Path, help="where bundles are kept; one folder a shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    texts, found = real_texts(options.texts), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in options.variants:
            bundle = make_bundle(
                (options.bundles or folder) / variant, shape=options.shape, variant=variant, texts=texts[:64]
            )
            found[variant] = measure(
                bundle.path, texts, engine=options.engine, callers=options.callers, rounds=options.rounds,
                folder=folder,
            )  # fmt: skip
        null = null_rate(folder / "texts.json", callers=max(options.callers))
    rows = [row for variant, one in found.items() for row in table(variant, one, found)]
    for row in rows:
        print(row["line"])
    print(f"the load alone carries {null:.0f} texts/s to a server that does nothing")
    record = {
        **asked(options),
        "threads": THREADS,
        "table": rows,
        "null_per_second": null,
        "runs": found,
    }
    print(write_record("server", record, out=options.out, name=options.shape))
    return 0


def table(variant: str, one: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a way of asking: texts a second, the share of the bare engine, and of `none` as served."""
    samples = {name: median(values) for name, values in one["samples"].items()}
    added = 1000 * (samples["served alone"] - samples["bare alone"])
    rows = [
        {
            "variant": variant, "way": "alone", "added_p50_ms": round(added, 3),
            "line": f"{variant} on {one['engine']}: alone: {1000 * samples['served alone']:.2f} ms, "
            f"{added:+.2f} ms over the bare engine",
        }
    ]  # fmt: skip
    for way in one["ways"]:
        share = samples[way] / samples["bare offline"]
        computed = samples[f"{way} per processor second"] / samples["bare per processor second"]
        row = {
            "variant": variant, "way": way, "per_second": round(samples[way], 1),
            "share_of_bare": round(share, 3), "share_of_bare_cpu": round(computed, 3),
            "line": f"{variant} on {one['engine']}: {way}: {samples[way]:.1f} texts/s, {share:.1%} of the "
            f"bare engine's {samples['bare offline']:.1f} (budget {one['budget']}), {computed:.1%} by "
            "processor time",
        }  # fmt: skip
        if "none" in found and variant != "none":
            plain = median(found["none"]["samples"][way])
            row["share_of_none"] = round(samples[way] / plain, 3)
            ticks = samples[f"{way} per processor second"] / median(
                found["none"]["samples"][f"{way} per processor second"]
            )
            row["share_of_none_cpu"] = round(ticks, 3)
            row["line"] += f"; {samples[way] / plain:.1%} of none, {ticks:.1%} by processor time"
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
