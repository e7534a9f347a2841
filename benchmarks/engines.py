"""How much faster is one text on each engine than in the transformers pipeline, by length?

Question: a service answers one request at a time; which engine, in which precision, answers soonest at 8 to
256 tokens, and how many times sooner than `transformers.pipeline` on a DistilBERT of that shape?

How: random weights (speed does not depend on them) of the chosen shape are written as a bundle and exported.
Every contender tokenises the same text and computes the label. They take turns in one process, in an order
that is shuffled each round; ratios are of medians. Twice: with two runs of its own before each that counts,
as one caller after the other finds a service, and without, right after another contender, whose weights then
fill the caches ("cold"). Every contender that this machine and the installed
packages allow takes part; why another does not is printed.

Output: a table of milliseconds and ratios, by wall and by processor time, and one JSON file with every sample
in benchmarks/results/.

    python -m benchmarks.engines                                  # DistilBERT shape, all cores, 25 rounds
    python -m benchmarks.engines --shape minilm --variant routing --threads 1
    python -m benchmarks.engines --shape tiny --rounds 2 --lengths 8 --out /tmp   # does it still work?
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bundles import SHAPES, VARIANTS, make_bundle, random_backbone
from benchmarks.record import RESULTS, Samples, alternate, processor, ratio, spread, write_record

LENGTHS = (8, 16, 32, 64, 128, 256)
LONGEST = max(LENGTHS)
WARM_UP = 3
BEFORE = 2  # runs of its own before each that counts
BASELINE = "pipeline"
PAIRS = (
    ("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("onnx", "int8"),
    ("openvino", "int8"),
)  # fmt: skip

Answer = Callable[[str], object]


def contenders(
    folder: Path, *, shape: str, variant: str, threads: int, quantize: bool = True
) -> dict[str, Answer]:
    """Functions from a text to an answer, by name."""
    import torch

    torch.set_num_threads(threads)
    bundle = make_bundle(
        folder / "bundle", shape=shape, variant=variant, max_length=LONGEST, quantize=quantize
    )
    backbone = random_backbone(folder / "backbone", SHAPES[shape])
    answers = {BASELINE: _pipeline(backbone)}
    for engine, precision in PAIRS:
        built = _engine(bundle, engine, precision, threads)
        if built is not None:
            answers[f"{engine} {precision}"] = built
    return answers


def _pipeline(backbone: Path) -> Answer:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from stratified_models.sources import quiet

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(str(backbone), num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    classify: Answer = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return classify


def _engine(bundle: Any, engine: Any, precision: Any, threads: int) -> Answer | None:
    """None, with the reason on stderr, where this machine or bundle does not allow it."""
    from tokenizers import Tokenizer

    from serving.encoding import TokenizerEncoder
    from serving.engines.choice import Wishes, choose_engine
    from serving.errors import BadStore
    from serving.types import EngineItem, Truncation

    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    encoder = TokenizerEncoder(tokenizer, max_tokens=bundle.manifest.max_length, special_ids=())
    wishes = Wishes(engine, precision, "cpu", threads)

    def told(step: str) -> None:
        if "fixed lengths" in step:
            print(f"{engine} {precision}: {step}", file=sys.stderr)

    try:
        built = choose_engine(bundle, encoder, wishes, clock=time.perf_counter, announce=told).engine
    except BadStore as error:
        print(f"{engine} {precision} does not take part: {error}", file=sys.stderr)
        return None
    return lambda text: built.run([EngineItem(encoder.encode(text, Truncation.HEAD).ids)])


def measure(
    answers: Mapping[str, Answer], lengths: Sequence[int], *, rounds: int, before: int
) -> dict[int, Samples]:
    """Seconds of every run after the warm-up, by length and contender; see `alternate`."""
    samples = {}
    for length in lengths:
        text = " ".join(["good"] * (length - 2))
        runs = {name: partial(answer, text) for name, answer in answers.items()}
        samples[length] = alternate(runs, rounds=rounds, warm_up=WARM_UP, before=before)
    return samples


def table(samples: Mapping[int, Samples], cold: Mapping[int, Samples]) -> list[dict[str, Any]]:
    """One row a length and contender: median and quartiles in ms, and the ratios to the pipeline."""
    rows = []
    for length, times in samples.items():
        for name, taken in times.items():
            low, middle, high = spread([1000 * one["wall"] for one in taken])
            rows.append(
                {
                    "tokens": length,
                    "engine": name,
                    "median_ms": round(middle, 3),
                    "quartiles_ms": [round(low, 3), round(high, 3)],
                    "times_pipeline": round(ratio(times, BASELINE, name), 2),
                    "times_pipeline_cpu": round(ratio(times, BASELINE, name, clock="cpu"), 2),
                    "times_pipeline_cold": round(ratio(cold[length], BASELINE, name), 2),
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="distilbert")
    parser.add_argument("--variant", choices=VARIANTS, default="none")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=25, help="at least 2")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--no-int8", action="store_true", help="leave the quantised file out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        answers = contenders(
            Path(folder),
            shape=options.shape,
            variant=options.variant,
            threads=options.threads,
            quantize=not options.no_int8,
        )
        samples = measure(answers, options.lengths, rounds=options.rounds, before=BEFORE)
        cold = measure(answers, options.lengths, rounds=max(2, options.rounds // 2), before=0)
    rows = table(samples, cold)
    print(f"{options.shape}, {options.variant}, {options.threads} thread(s), {processor()}")
    for row in rows:
        low, high = row["quartiles_ms"]
        print(
            f"{row['tokens']:>4} tokens  {row['engine']:<14} {row['median_ms']:>9.2f} ms "
            f"({low:.2f} to {high:.2f})  {row['times_pipeline']:>5.2f} × pipeline, "
            f"{row['times_pipeline_cpu']:.2f} × by processor time, {row['times_pipeline_cold']:.2f} × cold"
        )
    record = {
        "shape": {"name": options.shape, **SHAPES[options.shape]},
        "variant": options.variant,
        "threads": options.threads,
        "rounds": options.rounds,
        "table": rows,
        "seconds": {str(length): times for length, times in samples.items()},
        "seconds_cold": {str(length): times for length, times in cold.items()},
    }
    print(write_record("engines", record, out=options.out, name=f"{options.shape}-{options.variant}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
