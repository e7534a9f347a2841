"""How many samples a second does training take, against a plain script that pads to 256?

Question: public examples tokenise with `padding="max_length", max_length=256` and train a
`AutoModelForSequenceClassification` in fp32. How many times the samples a second does this job's way of
training take: rows of like length in a batch, padded no further than needed, fused AdamW, bf16 where the
processor has it, with and without the dropout of attention weights (`model.attention_dropout`), for whose
sake a CPU writes out all T × T of them?

How: both ways take whole optimizer steps of 32 rows on the same texts, tokenised before, by turns in one
process. The plain way always costs the same, so a few steps speak for it; ours takes every batch of one whole
pool of texts, short and long, so that its mean is that of an epoch.

    python -m benchmarks.training                                  # MiniLM, real weights
    python -m benchmarks.training --shape tiny --texts 64 --rounds 1 --length 64 --out /tmp
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import DOMAINS, LABELS, PACKAGE, REAL, SHAPES, random_backbone
from benchmarks.record import RESULTS, Samples, alternate, asked, processor, write_record
from benchmarks.texts import real_texts

BATCH = 32
RATE = 2e-5
DROPOUTS = {", attention dropout": None, "": 0.0}  # the checkpoint's own, and none
BF16 = {"avx512_bf16", "amx_bf16"}


def plain_steps(source: str, texts: Sequence[str], *, length: int, steps: int) -> Callable[[], None]:
    """Steps of the script that public examples show; every row padded to `length`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from stratified_models.sources import quiet

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(LABELS))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    rows = tokenizer(
        list(texts[: BATCH * steps]),
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="pt",
    )
    labels = torch.arange(len(rows["input_ids"])) % len(LABELS)

    def run() -> None:
        for at in range(0, len(labels), BATCH):
            part = slice(at, at + BATCH)
            loss = model(
                input_ids=rows["input_ids"][part],
                attention_mask=rows["attention_mask"][part],
                labels=labels[part],
            ).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def grouped_steps(
    source: str,
    texts: Sequence[str],
    *,
    shape: str,
    variant: str,
    length: int,
    bf16: bool,
    attention_dropout: float | None = None,
) -> Callable[[], None]:
    """Steps as the job takes them: its model, its order, its collator, fused AdamW."""
    import torch

    from stratified_models.loading import load_pretrained
    from stratified_models.sources import quiet
    from stratified_models.tokenizer import load_tokenizer
    from trainer_job.data.collate import Collator, length_grouped_order

    gate_dim = 64 if shape == REAL else min(64, SHAPES[shape]["width"] // 2)
    with quiet():
        model, report = load_pretrained(
            source,
            variant=variant,
            labels=LABELS,
            domains=DOMAINS,
            domain_labels=[list(range(len(LABELS)))] * len(DOMAINS),
            max_length=length,
            seed=0,
            family="distilbert",
            gate_dim=gate_dim,
            attention_dropout=attention_dropout,
        )
    tokenizer = load_tokenizer(report.source, max_length=length)
    ids = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
    rows = [
        {"input_ids": row, "labels": place % len(LABELS), "domain_id": place % len(DOMAINS)}
        for place, row in enumerate(ids)
    ]
    order = length_grouped_order([len(row) for row in ids], batch_size=BATCH, seed=0, epoch=0)
    collate = Collator(int(model.config.pad_token_id or 0), limit=length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    model.train()

    def run() -> None:
        for at in range(0, len(order), BATCH):
            batch = collate([rows[place] for place in order[at : at + BATCH]])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def table(samples: Samples, rows: dict[str, int], *, base: str) -> list[dict[str, Any]]:
    """One row a way: samples a second by wall and processor time, and how many times the plain way's."""
    rates = {
        clock: {name: rows[name] / median(one[clock] for one in taken) for name, taken in samples.items()}
        for clock in ("wall", "cpu")
    }
    return [
        {
            "way": name,
            "samples_per_second": round(rates["wall"][name], 2),
            "times_plain": round(rates["wall"][name] / rates["wall"][base], 2),
            "times_plain_cpu": round(rates["cpu"][name] / rates["cpu"][base], 2),
        }
        for name in samples
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--variants", nargs="+", default=["none"])
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="of the plain way, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    texts = real_texts(options.texts)
    has_bf16 = bool(BF16 & set(processor()["extensions"]))
    with tempfile.TemporaryDirectory() as folder:
        source = PACKAGE
        if options.shape != REAL:
            source = str(random_backbone(Path(folder) / "backbone", SHAPES[options.shape]))
        from stratified_models.sources import resolve_backbone

        base = f"plain, padded to {options.length}"
        steps = min(options.steps, max(1, len(texts) // BATCH))
        ways = {
            base: plain_steps(resolve_backbone(source), texts, length=options.length, steps=steps),
        }
        rows = {base: min(len(texts), BATCH * steps)}
        for variant in options.variants:
            for bf16, (said, dropout) in product((False, True)[: 1 + has_bf16], DROPOUTS.items()):
                name = f"{variant}, grouped, {'bf16' if bf16 else 'fp32'}{said}"
                ways[name] = grouped_steps(
                    source, texts, shape=options.shape, variant=variant, length=options.length, bf16=bf16,
                    attention_dropout=dropout,
                )  # fmt: skip
                rows[name] = len(texts)
        samples = alternate(ways, rounds=options.rounds)
    found = table(samples, rows, base=base)
    for row in found:
        print(
            f"{row['way']:<40} {row['samples_per_second']:>8.2f} samples/s  {row['times_plain']:.2f} × "
            f"plain, {row['times_plain_cpu']:.2f} × by processor time"
        )
    if not has_bf16:
        print("bf16 does not take part: this processor does not multiply in it")
    record = {**asked(options), "rows": rows, "table": found, "seconds": samples}
    print(write_record("training", record, out=options.out, name=options.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
