"""Small fakes of the real things, for the tests of whoever builds upon this package.

`tiny_backbone` writes a random encoder of any family and its tokenizer in the Hugging Face layout (see
`tiny`); `tiny_bundle` a bundle that a service can load. Both are deterministic and take well under a second.
They know no test framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.bundle import Backbone, Bundle, Domain, Manifest, OutOfDomain, write_bundle
from stratified_models.loading import load_pretrained
from stratified_models.sources import quiet
from stratified_models.tiny import tiny_config, tiny_tokenizer
from stratified_models.tokenizer import load_tokenizer

__all__ = ["TINY_LABELS", "tiny_backbone", "tiny_bundle", "tiny_model", "tiny_tokenizer"]

TINY_LABELS: tuple[str, ...] = ("negative", "neutral", "positive")


def tiny_backbone(
    directory: Path,
    *,
    family: str = "distilbert",
    width: int = 32,
    layers: int = 6,
    heads: int = 4,
    positions: int = 128,
    seed: int = 0,
) -> Path:
    """Write a random encoder of `family` and its tokenizer into `directory`; returns it.

    Raises:
        BackboneError: there is no such family.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(family)
    config = tiny_config(family, tokenizer, width=width, layers=layers, heads=heads, positions=positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]  # untyped in transformers
    with quiet():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(str(directory))
    return directory


def tiny_model(
    directory: Path,
    *,
    family: str = "distilbert",
    variant: str = "none",
    domains: Sequence[str] = ("imdb", "tweets"),
    labels: Sequence[str] = TINY_LABELS,
    max_length: int = 64,
    seed: int = 0,
    **options: Any,
) -> StratifiedForSequenceClassification:
    """A model upon a tiny backbone of `family`, which is written into `directory` unless one is there."""
    if not (Path(directory) / "config.json").exists():
        tiny_backbone(directory, family=family)
    options = {"gate_dim": 16, "domain_labels": [list(range(len(labels)))] * len(domains), **options}
    model, _ = load_pretrained(
        directory,
        variant=variant,
        labels=labels,
        domains=domains,
        max_length=max_length,
        seed=seed,
        **options,
    )
    return model


def tiny_bundle(
    directory: Path,
    *,
    family: str = "distilbert",
    variant: str = "none",
    domains: Sequence[str] = ("imdb", "tweets"),
    labels: Sequence[str] = TINY_LABELS,
    max_length: int = 64,
    seed: int = 0,
    version: str = "1",
    **options: Any,
) -> Bundle:
    """Write a bundle of a tiny, untrained model into `directory`; its backbone, of `family`, goes into
    `directory`/backbone."""
    backbone = Path(directory) / "backbone"
    model = tiny_model(
        backbone,
        family=family,
        variant=variant,
        domains=domains,
        labels=labels,
        max_length=max_length,
        seed=seed,
        **options,
    )
    manifest = Manifest(
        name=f"tiny-{variant}",
        version=version,
        created="2026-01-01T00:00:00Z",
        variant=variant,
        seed=seed,
        backbone=Backbone("tiny", "0" * 64),
        labels=tuple(labels),
        domains=tuple(Domain(name, tuple(labels), 1 / len(domains)) for name in domains),
        max_length=max_length,
        temperature=1.5,
        out_of_domain=OutOfDomain("energy", 0.0, 0.99),
        metrics={"validation": {"macro_f1": 0.33}},
    )
    tokenizer = load_tokenizer(backbone, max_length=max_length)
    return write_bundle(Path(directory), model=model, tokenizer=tokenizer, manifest=manifest, card="# tiny\n")
