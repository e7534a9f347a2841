"""How much faster is one text on each engine than in the transformers pipeline, by length?

Question: a service answers one request at a time; which engine, in which precision, answers soonest at 8 to
256 tokens, and how many times sooner than `transformers.pipeline` on a DistilBERT of that shape?

How: random weights (speed does not depend on them) of the chosen shape are written as a bundle and exported.
Every contender tokenises the same text and computes the label. They take turns in one process, in an order
that is shuffled each round, so that whatever else the machine does hits all alike; medians are over rounds,
ratios are of medians. The first rounds warm up and are dropped. On a busy machine only the ratios carry over,
and with more threads than free cores not even those: torch's threads then wait for one another.

Output: a table of milliseconds and ratios, and one JSON file with every sample, the date, the processor,
thread counts, the load and versions, in benchmarks/results/.

    python -m benchmarks.engines                                  # DistilBERT shape, all cores, 25 rounds
    python -m benchmarks.engines --shape minilm --variant routing --threads 1
    python -m benchmarks.engines --shape tiny --rounds 2 --lengths 8 --out /tmp   # does it still work?
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

SHAPES = {
    "distilbert": {"width": 768, "layers": 6, "heads": 12},
    "minilm": {"width": 384, "layers": 6, "heads": 12},
    "tiny": {"width": 32, "layers": 3, "heads": 4},
}
LENGTHS = (8, 16, 32, 64, 128, 256)
LONGEST = max(LENGTHS)
WARMUP = 3
BASELINE = "pipeline"
PACKAGES = ("torch", "transformers", "tokenizers", "onnxruntime", "numpy")
RESULTS = Path(__file__).parent / "results"

Answer = Callable[[str], object]


def contenders(folder: Path, *, shape: Mapping[str, int], variant: str, threads: int) -> dict[str, Answer]:
    """Functions from a text to an answer, by name."""
    import torch

    from stratified_models.bundle import read_bundle
    from stratified_models.onnx_export import export_onnx
    from stratified_models.testing import tiny_bundle

    torch.set_num_threads(threads)
    _backbone(folder / "backbone", shape)
    tiny_bundle(folder, variant=variant, max_length=LONGEST)
    export_onnx(folder, quantize="int8")
    bundle = read_bundle(folder)
    answers = {BASELINE: _pipeline(folder / "backbone")}
    for engine, precision in (("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")):
        answers[f"{engine} {precision}"] = _engine(bundle, engine, precision, threads)
    return answers


def _backbone(folder: Path, shape: Mapping[str, int]) -> None:
    """Random weights as BERT draws them, so that activations are of a usual size."""
    from transformers import DistilBertConfig, DistilBertModel

    from stratified_models.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    width = shape["width"]
    config = DistilBertConfig(
        vocab_size=30_522,
        dim=width,
        hidden_dim=4 * width,
        n_layers=shape["layers"],
        n_heads=shape["heads"],
        pad_token_id=tokenizer.pad_token_id,
    )
    DistilBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def _pipeline(backbone: Path) -> Answer:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from stratified_models.sources import quiet

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(str(backbone), num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    classify: Answer = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return classify


def _engine(bundle: Any, engine: Any, precision: Any, threads: int) -> Answer:
    from tokenizers import Tokenizer

    from serving.encoding import TokenizerEncoder
    from serving.engines.choice import Wishes, choose_engine
    from serving.types import EngineItem, Truncation

    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    encoder = TokenizerEncoder(tokenizer, max_tokens=bundle.manifest.max_length, special_ids=())
    wishes = Wishes(engine, precision, "cpu", threads)
    built = choose_engine(bundle, encoder, wishes, clock=time.perf_counter, announce=lambda step: None)
    return lambda text: built.run([EngineItem(encoder.encode(text, Truncation.HEAD).ids)])


def measure(
    answers: Mapping[str, Answer], lengths: Sequence[int], *, rounds: int
) -> dict[int, dict[str, list[float]]]:
    """Seconds of every run after the warm-up, by length and contender."""
    shuffler = random.Random(0)
    samples: dict[int, dict[str, list[float]]] = {}
    for length in lengths:
        text = " ".join(["good"] * (length - 2))
        times: dict[str, list[float]] = {name: [] for name in answers}
        for _ in range(WARMUP + rounds):
            order = list(answers)
            shuffler.shuffle(order)
            for name in order:
                started = time.perf_counter()
                answers[name](text)
                times[name].append(time.perf_counter() - started)
        samples[length] = {name: taken[WARMUP:] for name, taken in times.items()}
    return samples


def table(samples: Mapping[int, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """One row a length and contender: median and quartiles in milliseconds, and the ratio to the pipeline."""
    rows = []
    for length, times in samples.items():
        base = median(times[BASELINE])
        for name, taken in times.items():
            low, middle, high = quantiles([1000 * seconds for seconds in taken], n=4)
            rows.append(
                {
                    "tokens": length,
                    "engine": name,
                    "median_ms": round(middle, 3),
                    "quartiles_ms": [round(low, 3), round(high, 3)],
                    "times_pipeline": round(base / median(taken), 2),
                }
            )
    return rows


def processor() -> dict[str, Any]:
    """What computes: the processor's own name and the vector extensions that decide the order of engines."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = set((re.search(r"flags\s*:\s*(.+)", text) or ["", ""])[1].split())
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "model": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "extensions": [name for name in wanted if name in flags],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="distilbert")
    parser.add_argument("--variant", default="none")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=25, help="at least 2")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        answers = contenders(
            Path(folder), shape=SHAPES[options.shape], variant=options.variant, threads=options.threads
        )
        samples = measure(answers, options.lengths, rounds=options.rounds)
    rows = table(samples)
    now = datetime.now(UTC)
    record = {
        "benchmark": "engines",
        "date": now.isoformat(timespec="seconds"),
        "shape": {"name": options.shape, **SHAPES[options.shape]},
        "variant": options.variant,
        "threads": options.threads,
        "rounds": options.rounds,
        "processor": processor(),
        "load_average": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "table": rows,
        "seconds": {str(length): times for length, times in samples.items()},
    }
    print(f"{options.shape}, {options.variant}, {options.threads} thread(s), {record['processor']}")
    for row in rows:
        low, high = row["quartiles_ms"]
        print(
            f"{row['tokens']:>4} tokens  {row['engine']:<10} {row['median_ms']:>9.2f} ms "
            f"({low:.2f} to {high:.2f})  {row['times_pipeline']:>5.2f} × pipeline"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"engines-{options.shape}-{options.variant}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
