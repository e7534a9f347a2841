"""What `gpu.py` measures of training: steps as a plain script and as the job takes them, and a sweep."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

from benchmarks.bundles import DOMAINS, LABELS, REAL, SHAPES, VARIANTS
from benchmarks.processes import running
from benchmarks.record import Samples, alternate

if TYPE_CHECKING:
    import torch

__all__ = ["LONGEST", "OURS", "sweep", "sweep_config", "training", "training_flops"]

LONGEST = 256
PLAIN, OURS = "plain, padded to 256", "grouped, bf16"
RATE = 2e-5
BATCHES = {PLAIN: 32, OURS: 256}
SPLITS = {"train": 8, "validation": 9, "test": 10}  # up to which of ten rows each goes


def training(
    source: str, *, shape: str, texts: Sequence[str], rounds: int, device: torch.device
) -> tuple[Samples, float]:
    """Seconds of one pass over all texts either way; FLOPs of the pass without padding.

    Ours is as `benchmarks.training`: the job's model, order, collator and precision, with larger batches.
    """
    from stratified_models.tokenizer import load_tokenizer
    from trainer_job.data.collate import Collator, length_grouped_order

    plain, ours, weights = _models(source, shape)
    tokenizer = load_tokenizer(weights, max_length=LONGEST)
    ids = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    rows = [{"input_ids": row, "labels": place % len(LABELS)} for place, row in enumerate(ids)]
    known = [{**row, "domain_id": place % len(DOMAINS)} for place, row in enumerate(rows)]
    lengths, pad = [len(row) for row in ids], int(ours.config.pad_token_id or 0)
    grouped = length_grouped_order(lengths, batch_size=BATCHES[OURS], seed=0, epoch=0)
    wide, narrow = Collator(pad, multiple=LONGEST), Collator(pad, limit=LONGEST)

    def batches(way: str, order: Sequence[int], rows: Any, collate: Any) -> list[Any]:
        size = BATCHES[way]
        return [collate([rows[at] for at in order[n : n + size]]) for n in range(0, len(order), size)]

    ways = {
        PLAIN: _steps(plain, lambda: batches(PLAIN, range(len(rows)), rows, wide), device, bf16=False),
        OURS: _steps(ours, lambda: batches(OURS, grouped, known, narrow), device, bf16=True),
    }
    sizes = SHAPES["minilm" if shape == REAL else shape]
    return alternate(ways, rounds=rounds), training_flops(lengths, sizes["width"], sizes["layers"])


def _models(source: str, shape: str) -> tuple[Any, Any, Any]:
    """The plain script's model, ours, and where their weights lie."""
    from transformers import AutoModelForSequenceClassification

    from stratified_models.loading import load_pretrained
    from stratified_models.sources import quiet, resolve_backbone

    with quiet():
        plain = AutoModelForSequenceClassification.from_pretrained(
            resolve_backbone(source), num_labels=len(LABELS)
        )
        ours, report = load_pretrained(
            source,
            variant="none",
            labels=LABELS,
            domains=DOMAINS,
            domain_labels=[list(range(len(LABELS)))] * len(DOMAINS),
            max_length=LONGEST,
            seed=0,
            family="distilbert",
            gate_dim=_gate(shape),
        )
    return plain, ours, report.source


def _gate(shape: str) -> int:
    return 64 if shape == REAL else min(64, SHAPES[shape]["width"] // 2)


def _steps(
    model: Any, batches: Callable[[], Sequence[Any]], device: torch.device, *, bf16: bool
) -> Callable[[], None]:
    """A pass over all batches, which are collated anew each time, as an epoch does."""
    import torch

    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=bf16)

    def run() -> None:
        for batch in batches():
            there = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(**there).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def training_flops(lengths: Sequence[int], width: int, layers: int) -> float:
    """FLOPs of a forward and a backward pass: 6 a parameter of the encoder's matrices and token, 12 · D · T²
    a layer for attention's own products; padding is not counted."""
    parameters = 12 * layers * width**2
    return float(sum(6 * parameters * length + 12 * layers * width * length**2 for length in lengths))


def sweep(
    folder: Path,
    *,
    source: str,
    shape: str,
    texts: Sequence[str],
    device: str,
    limit: float,
    variants: Sequence[str] = VARIANTS,
) -> dict[str, Any]:
    """Train the variants with the job's own program: its seconds in all, and of each variant's training.

    Returns `stopped_after` alone where `limit` seconds were too few. Raises `RuntimeError`: the job failed.
    """
    config = sweep_config(folder, source=source, shape=shape, texts=texts, device=device, variants=variants)
    log, started = folder / "log", time.perf_counter()
    with running([sys.executable, "-m", "trainer_job", "run", "--config", str(config)], log=log) as job:
        try:
            code = job.wait(limit)
        except TimeoutExpired:
            return {"stopped_after": limit}
    seconds = time.perf_counter() - started
    if code:
        raise RuntimeError(f"the sweep ended with {code}: {log.read_text(encoding='utf-8')[-500:]}")
    found = json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))["variants"]
    return {"texts": len(texts), "seconds": round(seconds, 1)} | {
        name: {variant: round(entry[name], 1) for variant, entry in found.items()}
        for name in ("train_seconds", "tokens_per_second")
    }


def sweep_config(
    folder: Path, *, source: str, shape: str, texts: Sequence[str], device: str, variants: Sequence[str]
) -> Path:
    """A configuration below `folder` and its rows: the texts by turns to five domains, one epoch."""
    folder.mkdir(parents=True)
    for place, domain in enumerate(DOMAINS):
        rows = [
            json.dumps({"text": f"{number} {text}", "label": LABELS[number % len(LABELS)]})
            for number, text in enumerate(texts[place :: len(DOMAINS)])  # its number: no row twice
        ]
        start = 0
        for split, tenths in SPLITS.items():
            end = len(rows) * tenths // 10
            (folder / f"{domain}-{split}.jsonl").write_text(
                "\n".join(rows[start:end]) + "\n", encoding="utf-8"
            )
            start = end
    names = {name: name for name in LABELS}
    domains = {
        domain: {
            "source": {"kind": "files", "splits": {split: f"{domain}-{split}.jsonl" for split in SPLITS}},
            "label_map": names,
            "labels": list(LABELS),
        }
        for domain in DOMAINS
    }
    tree = {
        "results": str(folder / "results"), "logs": str(folder / "logs"), "cache": str(folder / "cache"),
        "variants": list(variants),
        "model": {
            "backbone": source, "family": "distilbert", "max_length": LONGEST, "gate_dim": _gate(shape),
        },
        "training": {"epochs": 1, "batch_size": BATCHES[OURS]},
        "hardware": {"device": device, "grace_seconds": 10},
        "data": {
            "root": str(folder), "train_samples": None, "leak_levels": ["exact"], "domains": domains,
        },
    }  # fmt: skip
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(tree, indent=1), encoding="utf-8")  # JSON is YAML
    return path
