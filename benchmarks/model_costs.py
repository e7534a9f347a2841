"""What `models.py` measures of each variant on each family: sizes, times, and distances. It prints nothing.

Its docstring says how; shapes and counts are here.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from stratified_models.config import VARIANTS

WIDTH, LAYERS, HEADS, POSITIONS = 384, 6, 12, 512  # MiniLM's
BASE = {"distilbert": 6, "bert": 12, "roberta": 12, "gpt2": 12}  # blocks of the base size, 768 wide
DOMAINS = tuple("abcde")
WARMUP = 2

Row = dict[str, Any]


def build(folder: Path, family: str, variant: str, **options: Any) -> Any:
    """A fresh model on the family's random encoder in `folder`; `options` are of its configuration."""
    from stratified_models.testing import tiny_backbone, tiny_model

    if not (folder / "config.json").exists():
        tiny_backbone(folder, family=family, width=WIDTH, layers=LAYERS, heads=HEADS, positions=POSITIONS)
    options = {"domains": DOMAINS, "gate_dim": 64, "max_length": POSITIONS, **options}
    return tiny_model(folder, family=family, variant=variant, **options)


def sizes(models: Mapping[str, Any], length: int) -> dict[str, Row]:
    """Parameters and operations a token of each variant, and what it adds to `none`, in this shape and at
    base size, with the family's real vocabulary."""
    from stratified_models.cost import flops_per_token

    found = {}
    for variant, model in models.items():
        family = model.family.name
        small, base = (
            _hollow(model.config, _encoder_config(family, *shape))
            for shape in ((WIDTH, LAYERS, HEADS), (768, BASE[family], 12))
        )
        found[variant] = {
            "parameters": small.num_parameters(),
            "flops": flops_per_token(small.config, length),
            "parameters_base": base.num_parameters(),
            "flops_base": flops_per_token(base.config, length),
        }
    plain = dict(found["none"])
    for row in found.values():
        for name, value in plain.items():
            row[f"{name}_added"] = row[name] / value - 1
    return found


def _encoder_config(family: str, width: int, layers: int, heads: int) -> Any:
    """An encoder of this shape with the family's real vocabulary and positions."""
    from transformers import AutoConfig

    names = {
        "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim"),
        "gpt2": ("n_embd", "n_layer", "n_head", "n_inner"),
    }.get(family, ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    return AutoConfig.for_model(family, **dict(zip(names, (width, layers, heads, 4 * width), strict=True)))


def _hollow(config: Any, encoder: Any) -> Any:
    """A model of `config` upon `encoder` without weights."""
    import torch

    from stratified_models import StratifiedConfig, StratifiedForSequenceClassification

    with torch.device("meta"):
        return StratifiedForSequenceClassification(
            StratifiedConfig(
                backbone_config=encoder,
                variant=config.variant,
                domains=config.domains,
                id2label=config.id2label,
                gate_dim=config.gate_dim,
            )
        )


def times(models: Mapping[str, Any], *, rows: int, length: int, rounds: int) -> dict[str, Row]:
    """Seconds of every round, and medians of the ratios to `none` within a round."""
    import torch

    ids = torch.randint(5, 200, (rows, length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    taught = {"labels": torch.zeros(rows, dtype=torch.long), "domain_id": torch.zeros(rows, dtype=torch.long)}

    def forward(model: Any) -> None:
        with torch.inference_mode():
            model(**batch)

    def both(model: Any) -> None:
        model(**batch, **taught).loss.backward()
        model.zero_grad()

    found: dict[str, Row] = {name: {} for name in models}
    for kind, work, training in (("forward", forward, False), ("backward", both, True)):
        for model in models.values():
            model.train() if training else model.prepare_for_inference()
        taken = _take_turns(models, work, rounds=rounds)
        for name, seconds in taken.items():
            ratios = [own / plain for own, plain in zip(seconds, taken["none"], strict=True)]
            found[name] |= {f"{kind}_seconds": seconds, f"{kind}_ratio": median(ratios)}
    return found


def _take_turns(
    models: Mapping[str, Any], work: Callable[[Any], None], *, rounds: int
) -> dict[str, list[float]]:
    shuffler = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(WARMUP + rounds):
        order = list(models)
        shuffler.shuffle(order)
        for name in order:
            started = time.process_time()
            work(models[name])
            taken[name].append(time.process_time() - started)
    return {name: seconds[WARMUP:] for name, seconds in taken.items()}


def identity_error(model: Any, folder: Path) -> float:
    """Largest distance of the hidden states of a fresh model from the library's own forward."""
    import torch
    from transformers import AutoModel

    from stratified_models.sources import quiet

    with quiet():
        reference: Any = AutoModel.from_pretrained(str(folder)).eval()
    lengths = torch.tensor([2, 17, 64, 128])
    mask = (torch.arange(128) < lengths[:, None]).long()
    ids = torch.randint(5, 200, mask.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.where(mask.bool(), ids, torch.full_like(ids, int(model.config.pad_token_id)))
    model.calibrate_gate_([{"input_ids": ids, "attention_mask": mask}], seed=0)
    model.prepare_for_inference()
    with torch.inference_mode():
        ours = model.encode(ids, mask).hidden[mask.bool()]
        theirs = reference(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    return float((ours - theirs).abs().max())


def export_error(folder: Path, family: str, variant: str) -> float:
    """Largest distance of any output of the exported graph from the model's own."""
    import torch

    from stratified_models import load_tokenizer
    from stratified_models.bundle import load_model, write_bundle
    from stratified_models.onnx_export import export_onnx
    from stratified_models.testing import tiny_bundle

    bundle = tiny_bundle(folder, family=family, variant=variant, domains=DOMAINS, gate_dim=64, max_length=256)
    model = load_model(bundle)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone.") and not bool(parameter.any()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    tokenizer = load_tokenizer(bundle.path, max_length=256)
    write_bundle(folder, model=model, tokenizer=tokenizer, manifest=bundle.manifest, card="# moved\n")
    return export_onnx(folder)[0].worst


def measure_family(family: str, options: Any) -> list[Row]:
    """The rows of one family."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {variant: build(folder / "backbone", family, variant) for variant in VARIANTS}
        counted = sizes(models, options.length)
        timed = times(models, rows=options.rows, length=options.length, rounds=options.rounds)
        rows = []
        for variant in VARIANTS:
            fresh = build(folder / "backbone", family, variant)
            row = {"family": family, "variant": variant, **counted[variant], **timed[variant]}
            row["identity_error"] = identity_error(fresh, folder / "backbone")
            row["onnx_error"] = None
            if options.exports:
                place = folder / variant
                place.mkdir()
                (place / "backbone").symlink_to(folder / "backbone")
                row["onnx_error"] = export_error(place, family, variant)
            rows.append(row)
            print(f"{family} {variant}: done", file=sys.stderr, flush=True)
        return rows
