"""What does one GPU serve and train? Skipped, with the reason, where torch sees none.

Questions: how many real texts a second does the torch engine classify with bf16 and recorded kernels, and how
many times that of eager fp32 on the same GPU? How many times the samples a second of a plain script padded
to 256 does training as the job does it take in bf16, and what share of the GPU's dense bf16 rate is that
(MFU)? And how long does the job take for the five variants on so many texts?

How: for each shape ways take turns, and ratios are of medians. Texts are in batches of like length, of a
token budget where they are served. The sweep is the installed program with a configuration of its own, real
texts with made-up labels, ended after `--sweep-limit` seconds.

    python -m benchmarks.gpu                                         # MiniLM, and the shape of DistilBERT
    python -m benchmarks.gpu --device cpu --shapes tiny --texts 32 --rounds 1 --sweep-texts 0   # works?
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.bundles import PACKAGE, REAL, SHAPES, make_bundle, random_backbone
from benchmarks.gpu_training import LONGEST, OURS, sweep, training
from benchmarks.record import RESULTS, Samples, alternate, asked, write_record
from benchmarks.strata import batches_of
from benchmarks.texts import real_texts

if TYPE_CHECKING:
    import torch

BUDGET = 32_768
DENSE_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "L40S": 362e12}  # FLOP/s


def serving(folder: Path, *, shape: str, texts: Sequence[str], rounds: int, device: torch.device) -> Samples:
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
    eager = load_model(bundle)
    torch.nn.Module.to(eager, device)  # what transformers wraps around it confuses the type checker
    engine = TorchEngine(load_model(bundle), device=device, precision="bf16")
    pad = int(eager.config.pad_token_id or 0)

    def plain() -> None:
        from serving.engines.arrays import assemble

        with torch.inference_mode():
            for batch in batches:
                feed = assemble(batch, pad=pad)
                eager(
                    **{name: torch.from_numpy(value).to(device) for name, value in feed.items()}
                ).logits.cpu()

    def ours() -> None:
        for batch in batches:
            engine.run(batch)

    return alternate({"eager fp32": plain, "engine bf16": ours}, rounds=rounds, warm_up=2)


def measured(folder: Path, shape: str, texts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Serving and training of one shape: the table's rows by way, and all samples."""
    import torch

    device, source = torch.device(options.device), PACKAGE
    if shape != REAL:
        source = str(random_backbone(folder / "backbone", SHAPES[shape]))
    how: dict[str, Any] = {"shape": shape, "texts": texts, "rounds": options.rounds, "device": device}
    served = serving(folder, **how)
    trained, flops = training(source, **how)
    rows: dict[str, dict[str, float]] = {}
    for samples in (served, trained):
        base = median(one["wall"] for one in next(iter(samples.values())))
        for name, taken in samples.items():
            seconds = median(one["wall"] for one in taken)
            rows[name] = {
                "texts_per_second": round(len(texts) / seconds, 1),
                "times_first": round(base / seconds, 2),
            }
    peak = next((rate for name, rate in DENSE_BF16.items() if name in card(options.device)), None)
    if peak is not None:
        rows[OURS]["mfu"] = round(flops / median(one["wall"] for one in trained[OURS]) / peak, 4)
    return {"source": source, "rows": rows, "seconds": {"serving": served, "training": trained}}


def card(device: str) -> str:
    """What computes, by its own name."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the samples; without a GPU say so, and succeed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=[REAL, *sorted(SHAPES)], default=[REAL, "distilbert"])
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sweep-texts", type=int, default=4000, help="0: no sweep; it is of the first shape")
    parser.add_argument("--sweep-limit", type=float, default=600.0, help="seconds")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: does it work?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch sees no GPU on this machine")
        return 0
    texts, found, whole = real_texts(options.texts), {}, None
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shapes:
            found[shape] = measured(Path(name) / shape, shape, texts, options)
            for way, row in found[shape]["rows"].items():
                print(f"{card(options.device)}, {shape}: {way}: {row}")
        if options.sweep_texts:
            first = options.shapes[0]
            whole = sweep(
                Path(name) / "sweep", source=found[first].pop("source"), shape=first,
                texts=real_texts(options.sweep_texts), device=options.device, limit=options.sweep_limit,
            )  # fmt: skip
            print(f"{card(options.device)}, {first}: five variants: {whole}")
    record = {
        **asked(options), "card": card(options.device), "sweep": whole,
        "table": {shape: one["rows"] for shape, one in found.items()},
        "samples": {shape: one["seconds"] for shape, one in found.items()},
    }  # fmt: skip
    print(write_record("gpu", record, out=options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
