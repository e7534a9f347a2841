"""Does the faster way of training learn as much?

Question: `benchmarks.training` counts samples a second. Do the model, the order and the precision that make
them so many also reach the validation accuracy of the plain script, over several seeds?

How: both ways train on the rows of a sweep's configuration, for as many epochs, with batches of 32, the same
rate and AdamW; the plain one as public examples show (shuffled, every row padded to `--length`, fp32), ours
as the job does (rows of like length together, fused AdamW, in bf16 too where the processor has it, with and
without the dropout of attention weights). All are evaluated on the whole validation split, the domain
unknown: accuracy and cross-entropy. They take turns, seed by seed.

    python -m benchmarks.learning                                  # quickstart's rows, three seeds
    python -m benchmarks.learning --set data.train_samples=60 --seeds 1 --length 32 --out /tmp
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.record import RESULTS, asked, processor, write_record
from benchmarks.training import BATCH, BF16, DROPOUTS

Step = Callable[[Sequence[int]], Any]  # from places of rows to the loss


@dataclass
class Rows:
    """Token ids, labels and domains of a split, by place."""

    ids: list[list[int]]
    labels: list[int]
    domains: list[int]


@dataclass
class Way:
    """A model with its order of rows; `loss` and `predict` take rows by place."""

    model: Any
    order: Callable[[int], list[int]]
    loss: Step
    predict: Callable[[Rows, Sequence[int]], Any]
    fused: bool


def plain_way(source: str, train: Rows, labels: int, *, length: int, seed: int) -> Way:
    """The script that public examples show."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from stratified_models.sources import quiet

    torch.manual_seed(seed)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)

    def feed(rows: Rows, places: Sequence[int], width: int) -> dict[str, Any]:
        ids = torch.full((len(places), width), int(model.config.pad_token_id or 0))
        mask = torch.zeros_like(ids)
        for line, place in enumerate(places):
            size = len(rows.ids[place])
            ids[line, :size], mask[line, :size] = torch.tensor(rows.ids[place]), 1
        return {"input_ids": ids, "attention_mask": mask}

    def order(epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed + epoch)
        return [int(place) for place in torch.randperm(len(train.ids), generator=generator)]

    def loss(places: Sequence[int]) -> Any:
        gold = torch.tensor([train.labels[place] for place in places])
        return model(**feed(train, places, length), labels=gold).loss

    def predict(rows: Rows, places: Sequence[int]) -> Any:
        return model(**feed(rows, places, max(len(rows.ids[place]) for place in places))).logits

    return Way(model, order, loss, predict, fused=False)


def our_way(
    config: Any, corpus: Any, train: Rows, *, length: int, seed: int, bf16: bool, dropout: float | None
) -> Way:
    """The job's model, order, collator and precision."""
    import torch

    from stratified_models.loading import load_pretrained
    from stratified_models.sources import quiet
    from trainer_job.data.collate import Collator, length_grouped_order

    with quiet():
        model, _ = load_pretrained(
            config.model.backbone, variant="none", labels=corpus.labels, domains=corpus.domains,
            domain_labels=[list(ids) for ids in corpus.domain_labels], max_length=length, seed=seed,
            family=config.model.family, gate_dim=config.model.gate_dim,
            attention_dropout=dropout,
        )  # fmt: skip
    torch.manual_seed(seed)
    collate = Collator(int(model.config.pad_token_id or 0), limit=length)
    lengths = [len(ids) for ids in train.ids]

    def batch(rows: Rows, places: Sequence[int], *, domains: bool) -> dict[str, Any]:
        return collate(
            [
                {
                    "input_ids": rows.ids[place], "labels": rows.labels[place],
                    "domain_id": rows.domains[place] if domains else -1,
                }
                for place in places
            ]
        )  # fmt: skip

    def loss(places: Sequence[int]) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(**batch(train, places, domains=True)).loss

    def predict(rows: Rows, places: Sequence[int]) -> Any:
        given = batch(rows, places, domains=False)
        given.pop("labels")
        return model(**given).logits

    def order(epoch: int) -> list[int]:
        return length_grouped_order(lengths, batch_size=BATCH, seed=seed, epoch=epoch)

    return Way(model, order, loss, predict, fused=True)


def train_and_evaluate(way: Way, train: Rows, held: Rows, *, epochs: int, rate: float) -> dict[str, float]:
    """Accuracy (0 to 1) and cross-entropy (nats) on `held`; seconds of training by wall and processor."""
    import torch

    optimizer = torch.optim.AdamW(way.model.parameters(), lr=rate, fused=way.fused)
    way.model.train()
    wall, cpu = time.perf_counter(), time.process_time()
    for epoch in range(epochs):
        order = way.order(epoch)
        for at in range(0, len(order), BATCH):
            way.loss(order[at : at + BATCH]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    way.model.eval()
    right, surprise = 0, 0.0
    with torch.inference_mode():
        for places in _short_first(held):
            logits, gold = way.predict(held, places), torch.tensor([held.labels[place] for place in places])
            right += int((logits.argmax(-1) == gold).sum())
            surprise += float(torch.nn.functional.cross_entropy(logits.float(), gold, reduction="sum"))
    rows = len(held.labels)
    return {"accuracy": right / rows, "cross_entropy": surprise / rows, **taken}


def _short_first(rows: Rows) -> Iterator[list[int]]:
    order = sorted(range(len(rows.ids)), key=lambda place: len(rows.ids[place]))
    for at in range(0, len(order), BATCH):
        yield order[at : at + BATCH]


def split_of(corpus: Any, name: str, tokenizer: Any, *, length: int) -> Rows:
    """A split's rows, tokenised once for both ways."""
    split = corpus.splits[name]
    ids = tokenizer(list(split["text"]), truncation=True, max_length=length)["input_ids"]
    return Rows([list(row) for row in ids], list(split["label"]), list(split["domain_id"]))


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """What each way reached and took, seed by seed."""
    from stratified_models.sources import resolve_backbone
    from stratified_models.tokenizer import load_tokenizer
    from trainer_job.data import load_corpus
    from trainer_job.loading import load_config

    config = load_config(options.config, settings=options.set)
    corpus, source = load_corpus(config.data), resolve_backbone(config.model.backbone)
    tokenizer = load_tokenizer(source, max_length=options.length)
    train, held = (
        split_of(corpus, name, tokenizer, length=options.length) for name in ("train", "validation")
    )
    has_bf16 = bool(BF16 & set(processor()["extensions"]))
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        options_of = {"length": options.length, "seed": seed}
        ways: dict[str, Callable[[], Way]] = {
            "plain": partial(plain_way, source, train, len(corpus.labels), **options_of)
        }
        for bf16, (said, dropout) in product((False, True)[: 1 + has_bf16], DROPOUTS.items()):
            ways[f"grouped, {'bf16' if bf16 else 'fp32'}{said}"] = partial(
                our_way, config, corpus, train, bf16=bf16, dropout=dropout, **options_of
            )
        for name, make in ways.items():
            one = train_and_evaluate(make(), train, held, epochs=options.epochs, rate=options.rate)
            print(
                f"seed {seed}: {name}: accuracy {one['accuracy']:.3f}, {one['wall']:.0f} s", file=sys.stderr
            )
            found.setdefault(name, []).append(one)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    found = measure(options)
    rows = []
    for name, runs in found.items():
        reached = [one["accuracy"] for one in runs]
        times = {
            clock: mean(one[clock] for one in found["plain"]) / mean(one[clock] for one in runs)
            for clock in ("wall", "cpu")
        }
        loss = mean(one["cross_entropy"] for one in runs)
        rows.append(
            {
                "way": name,
                "accuracy": round(mean(reached), 4),
                "accuracies": reached,
                "cross_entropy": loss,
                **times,
            }
        )
        spread = f" ± {stdev(reached):.3f}" if len(reached) > 1 else ""
        print(
            f"{name:<32} accuracy {mean(reached):.3f}{spread}, cross-entropy {loss:.3f}  "
            f"{times['wall']:.2f} × as fast as plain, {times['cpu']:.2f} × by processor time"
        )
    print(write_record("learning", {**asked(options), "table": rows, "runs": found}, out=options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
