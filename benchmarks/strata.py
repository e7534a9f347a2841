"""What do the strata cost? Throughput of each variant against `none`, on each engine.

Question: how many texts a second does each variant answer, as a share of what `none` answers on the same
engine? The bound is 75 %, for moe 65 %.

How: bundles of one shape with the same pretrained encoder; the texts of five domains, sorted by length and
cut into batches of a token budget, which is how a busy service computes them. All variants of an engine take
turns in one process; ratios are of medians.

    python -m benchmarks.strata                                      # MiniLM, real weights, one thread
    python -m benchmarks.strata --shape tiny --texts 8 --rounds 2 --engines onnx --out /tmp
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import REAL, SHAPES, VARIANTS, make_bundle
from benchmarks.record import RESULTS, Samples, alternate, asked, ratio, write_record
from benchmarks.texts import real_texts

ENGINES = ("torch", "onnx", "openvino")
BUDGET = 512  # tokens of a batch, with padding
BOUNDS = {"moe": 0.65}
USUAL_BOUND = 0.75

Batches = list[list[Any]]


def encoder_of(bundle: Any) -> Any:
    """The bundle's tokenizer, as the service uses it."""
    from tokenizers import Tokenizer

    from serving.encoding import TokenizerEncoder

    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    return TokenizerEncoder(tokenizer, max_tokens=bundle.manifest.max_length, special_ids=())


def batches_of(texts: Sequence[str], encoder: Any, *, budget: int = BUDGET) -> Batches:
    """Engine items, sorted by length, in batches of up to `budget` padded tokens."""
    from serving.types import EngineItem, Truncation

    items = sorted(
        (EngineItem(encoder.encode(text, Truncation.HEAD).ids) for text in texts),
        key=lambda item: len(item.ids),
    )
    batches: Batches = [[]]
    for item in items:
        if batches[-1] and len(item.ids) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(item)
    return batches


def measure(
    folder: Path, *, shape: str, engines: Sequence[str], texts: Sequence[str], rounds: int, threads: int
) -> dict[str, Samples]:
    """Seconds for all texts, by engine and variant."""
    from serving.engines.buckets import Bounds
    from serving.engines.choice import Wishes, choose_engine

    bundles = {
        variant: make_bundle(folder / variant, shape=shape, variant=variant, texts=texts[:64])
        for variant in VARIANTS
    }
    found: dict[str, Samples] = {}
    for name in engines:
        runs = {}
        for variant, bundle in bundles.items():
            # Without graphs of single lengths: batches do not use them.
            wishes = Wishes(engine=name, device="cpu", threads=threads, bounds=Bounds(count=0))  # type: ignore[arg-type]  # one of ENGINES
            encoder = encoder_of(bundle)
            choice = choose_engine(
                bundle, encoder, wishes, clock=time.perf_counter, announce=lambda step: None
            )
            runs[variant] = _run(choice.engine, batches_of(texts, encoder))
        found[name] = alternate(runs, rounds=rounds)
    return found


def _run(engine: Any, batches: Batches) -> Any:
    def run() -> None:
        for batch in batches:
            engine.run(batch)

    return run


def table(found: dict[str, Samples], texts: int) -> list[dict[str, Any]]:
    """One row an engine and variant: texts a second, the share of `none`'s, and whether the bound holds."""
    rows = []
    for engine, samples in found.items():
        for variant, taken in samples.items():
            share = {clock: ratio(samples, "none", variant, clock=clock) for clock in ("wall", "cpu")}
            bound = BOUNDS.get(variant, USUAL_BOUND)
            rows.append(
                {
                    "engine": engine,
                    "variant": variant,
                    "texts_per_second": round(texts / median(one["wall"] for one in taken), 1),
                    "share_of_none": round(share["wall"], 3),
                    "share_of_none_cpu": round(share["cpu"], 3),
                    "bound": bound,
                    "holds": share["cpu"] >= bound,
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bundles", type=Path, help="where bundles are kept; one folder a shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    texts = real_texts(options.texts)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            options.bundles or Path(folder),
            shape=options.shape,
            engines=options.engines,
            texts=texts,
            rounds=options.rounds,
            threads=options.threads,
        )
    rows = table(found, len(texts))
    for row in rows:
        print(
            f"{row['engine']:<9} {row['variant']:<10} {row['texts_per_second']:>8.1f} texts/s  "
            f"{row['share_of_none']:>6.1%} of none, {row['share_of_none_cpu']:.1%} by processor time "
            f"(bound {row['bound']:.0%}{'' if row['holds'] else ', MISSED'})"
        )
    record = {**asked(options), "table": rows, "seconds": found}
    print(write_record("strata", record, out=options.out, name=options.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
