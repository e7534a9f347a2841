"""Small fakes of the real things, for the tests of whoever builds upon this package.

`tiny_backbone` writes a random DistilBERT with a WordPiece tokenizer in the Hugging Face layout;
`tiny_bundle` a bundle that a service can load. Both are deterministic and take well under a second. They
know no test framework.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.bundle import Backbone, Bundle, Domain, Manifest, OutOfDomain, write_bundle
from stratified_models.loading import load_pretrained
from stratified_models.sources import quiet
from stratified_models.tokenizer import load_tokenizer

__all__ = ["TINY_LABELS", "tiny_backbone", "tiny_bundle", "tiny_model", "tiny_tokenizer"]

TINY_LABELS: tuple[str, ...] = ("negative", "neutral", "positive")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the a an and or but not no of to in on at for with from by as is are was were be been it this "
    "that these those i you he she we they me my your his her our their its what who how when where "
    "why which there here so too very just only also more most less than then now never always still "
    "again film movie plot story actor ending scene book product battery price screen phone food "
    "service tweet post article opinion good great best nice fine well love loved like liked enjoy "
    "happy fun funny worth perfect excellent amazing wonderful beautiful bad worst awful terrible "
    "boring bored dull poor waste hate hated sad angry broken wrong slow cheap ugly worse drags okay "
    "average arrived tuesday day today time times two one three year years people man woman thing "
    "things way work works buy would could should will can do does did have has had get got go went "
    "make made see saw watch watched read think "
)
PIECES = ("##s", "##ed", "##ing", "##ly", "##er", "##est", "##y", "##ness", "##ful", "##n't")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece over common words, letters, digits and punctuation; any text tokenises."""
    marks = list(string.ascii_lowercase + string.digits + string.punctuation)
    entries = [*SPECIAL, *dict.fromkeys([*WORDS.split(), *marks]), *(f"##{mark}" for mark in marks), *PIECES]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL[1]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
    )
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped in transformers
        tokenizer_object=backend, model_input_names=inputs, **names
    )


def tiny_backbone(
    directory: Path,
    *,
    width: int = 32,
    layers: int = 6,
    heads: int = 4,
    positions: int = 128,
    seed: int = 0,
) -> Path:
    """Write a random DistilBERT of `width` and its tokenizer into `directory`; returns it."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        dim=width,
        hidden_dim=4 * width,
        n_layers=layers,
        n_heads=heads,
        initializer_range=0.2,  # wide enough that texts differ
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DistilBertModel(config)
    with quiet():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(str(directory))
    return directory


def tiny_model(
    directory: Path,
    *,
    variant: str = "none",
    domains: Sequence[str] = ("imdb", "tweets"),
    labels: Sequence[str] = TINY_LABELS,
    max_length: int = 64,
    seed: int = 0,
    **options: Any,
) -> StratifiedForSequenceClassification:
    """A model upon a tiny backbone, which is written into `directory` unless it is there."""
    if not (Path(directory) / "config.json").exists():
        tiny_backbone(directory)
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
    variant: str = "none",
    domains: Sequence[str] = ("imdb", "tweets"),
    labels: Sequence[str] = TINY_LABELS,
    max_length: int = 64,
    seed: int = 0,
    version: str = "1",
    **options: Any,
) -> Bundle:
    """Write a bundle of a tiny, untrained model into `directory`; its backbone goes into
    `directory`/backbone."""
    backbone = Path(directory) / "backbone"
    model = tiny_model(
        backbone, variant=variant, domains=domains, labels=labels, max_length=max_length, seed=seed, **options
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
