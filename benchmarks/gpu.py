"""What does one GPU serve and train? Skipped, with the reason, where torch sees none.

Questions: how many real texts a second does the torch engine classify with bf16 and recorded kernels, and how
many times that of eager fp32 on the same GPU? How many times the samples a second of a plain script padded
to 256 does training on batches of like length take in bf16, and what share of the GPU's dense bf16 rate is
that (MFU)?

How: batches of like length up to a token budget; ways take turns, and ratios are of medians. Work is counted
as 6 FLOPs a parameter of the encoder's matrices and token, and attention's own products, without padding.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import PACKAGE, REAL, SHAPES, make_bundle, random_backbone
from benchmarks.record import RESULTS, Samples, alternate, asked, write_record
from benchmarks.strata import batches_of
from benchmarks.texts import real_texts

BUDGET = 32_768
LONGEST = 256
DENSE_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "L40S": 362e12}  # FLOP/s


def serving(folder: Path, *, shape: str, texts: Sequence[str], rounds: int) -> Samples:
    """Seconds for all texts: eager fp32, and bf16 with recordings."""
    import torch
    from tokenizers import Tokenizer

    from serving.encoding import TokenizerEncoder
    from serving.engines.torch import TorchEngine
    from stratified_models.bundle import load_model

    bundle = make_bundle(folder / "bundle", shape=shape, max_length=LONGEST, texts=texts[:64], export=False)
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    encoder = TokenizerEncoder(tokenizer, max_tokens=LONGEST, special_ids=())
    batches = batches_of(texts, encoder, budget=BUDGET)
    gpu = torch.device("cuda")
    eager = load_model(bundle)
    torch.nn.Module.to(eager, gpu)  # what transformers wraps around it confuses the type checker
    engine = TorchEngine(load_model(bundle), device=gpu, precision="bf16")
    pad = int(eager.config.pad_token_id or 0)

    def plain() -> None:
        from serving.engines.arrays import assemble

        with torch.inference_mode():
            for batch in batches:
                feed = assemble(batch, pad=pad)
                eager(**{name: torch.from_numpy(value).to(gpu) for name, value in feed.items()}).logits.cpu()

    def ours() -> None:
        for batch in batches:
            engine.run(batch)

    return alternate({"eager fp32": plain, "engine bf16": ours}, rounds=rounds, warm_up=2)


def training(folder: Path, *, shape: str, texts: Sequence[str], rounds: int) -> tuple[Samples, float]:
    """Seconds of one pass over all texts either way; FLOPs of the pass without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from stratified_models.sources import quiet, resolve_backbone
    from trainer_job.data.collate import Collator, length_grouped_order

    source = resolve_backbone(PACKAGE)
    if shape != REAL:
        source = str(random_backbone(folder / "backbone", SHAPES[shape]))
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    rows = [{"input_ids": row, "labels": place % 3} for place, row in enumerate(ids)]

    def steps(order: Sequence[int], collate: Any, *, size: int, bf16: bool) -> Callable[[], None]:
        with quiet():
            model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3).to("cuda")
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=bf16)

        def run() -> None:
            for at in range(0, len(order), size):
                batch = collate([rows[place] for place in order[at : at + size]])
                batch = {name: value.cuda(non_blocking=True) for name, value in batch.items()}
                with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                    loss = model(**batch).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

        return run

    pad, lengths = int(tokenizer.pad_token_id), [len(row) for row in ids]
    grouped = length_grouped_order(lengths, batch_size=256, seed=0, epoch=0)
    ways = {
        "plain, padded to 256": steps(range(len(rows)), Collator(pad, multiple=LONGEST), size=32, bf16=False),
        "grouped, bf16": steps(grouped, Collator(pad, limit=LONGEST), size=256, bf16=True),
    }
    sizes = SHAPES["minilm" if shape == REAL else shape]
    return alternate(ways, rounds=rounds), training_flops(lengths, sizes["width"], sizes["layers"])


def training_flops(lengths: Sequence[int], width: int, layers: int) -> float:
    """FLOPs of a forward and a backward pass: 6 a parameter and token, 12 · D · T² a layer for attention."""
    parameters = 12 * layers * width**2
    return float(sum(6 * parameters * length + 12 * layers * width * length**2 for length in lengths))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the samples; without a GPU say so, and succeed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("skipped: torch sees no GPU on this machine")
        return 0
    texts, card = real_texts(options.texts), torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        served = serving(Path(folder), shape=options.shape, texts=texts, rounds=options.rounds)
        trained, flops = training(Path(folder), shape=options.shape, texts=texts, rounds=options.rounds)
    rows = {}
    for samples in (served, trained):
        first = next(iter(samples))
        base = median(one["wall"] for one in samples[first])
        for name, taken in samples.items():
            seconds = median(one["wall"] for one in taken)
            rows[name] = {
                "texts_per_second": round(len(texts) / seconds, 1),
                "times_first": round(base / seconds, 2),
            }
    peak = next((rate for name, rate in DENSE_BF16.items() if name in card), None)
    if peak is not None:
        seconds = median(one["wall"] for one in trained["grouped, bf16"])
        rows["grouped, bf16"]["mfu"] = round(flops / seconds / peak, 4)
    for name, row in rows.items():
        print(f"{card}: {name}: {row}")
    record = {
        **asked(options), "card": card, "table": rows,
        "seconds": {"serving": served, "training": trained},
    }  # fmt: skip
    print(write_record("gpu", record, out=options.out, name=options.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
