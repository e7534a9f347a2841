"""A sweep small enough for tests: a random tiny encoder, two made-up domains, and their configuration."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stratified_models.testing import tiny_backbone
from trainer_job.config import RunConfig
from trainer_job.loading import load_config
from trainer_job.units import Layout, Unit, planned_units
from trainer_job.worker import work

WORDS = {
    "positive": ["good", "great", "best", "nice", "fine", "love", "happy", "perfect", "excellent", "amazing"],
    "negative": ["bad", "worst", "awful", "terrible", "boring", "dull", "poor", "waste", "hate", "broken"],
    "neutral": ["tuesday", "day", "time", "thing", "three", "year", "people", "two", "days", "year"],
}
PLAIN = ["the", "a", "film", "movie", "book", "product", "it", "was", "and", "of", "to", "in"]
DOMAINS = {"films": ("negative", "positive"), "shop": ("negative", "neutral", "positive")}
SIZES = {"train": 96, "validation": 48, "test": 60}


@dataclass(frozen=True)
class Tiny:
    """Where the fake data and weights lie; `config` makes a configuration with its own results folder."""

    root: Path

    def config(self, place: Path, *settings: str) -> RunConfig:
        """A validated configuration whose results, logs and cache are below `place`."""
        return load_config(str(self.yaml(place)), settings=settings)

    def yaml(self, place: Path) -> Path:
        """The same as a file, for the command line."""
        place.mkdir(parents=True, exist_ok=True)
        domains: dict[str, Any] = {
            name: {
                "source": {"kind": "files", "splits": {split: f"{name}-{split}.jsonl" for split in SIZES}},
                "label_map": {label: label for label in labels},
                "labels": list(labels),
            }
            for name, labels in DOMAINS.items()
        }
        tree = {
            "results": str(place / "results"),
            "logs": str(place / "logs"),
            "cache": str(self.root / "cache"),
            "model": {"backbone": str(self.root / "backbone"), "max_length": 32, "strata": 4, "gate_dim": 8},
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "log_every": 3},
            "hardware": {"device": "cpu", "grace_seconds": 60},
            "data": {"root": str(self.root), "train_samples": None, "domains": domains},
        }
        path = place / "tiny.yaml"
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        return path


def make_tiny(root: Path) -> Tiny:
    """Write backbone and data files below `root`."""
    tiny_backbone(root / "backbone", width=16, layers=6, heads=2)
    rng = random.Random(7)
    for name, labels in DOMAINS.items():
        for split, size in SIZES.items():
            lines = [json.dumps(row(rng, labels[place % len(labels)])) for place in range(size)]
            (root / f"{name}-{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Tiny(root)


def row(rng: random.Random, label: str) -> dict[str, str]:
    """A made-up text whose words show the label; no two are alike."""
    words = [rng.choice(WORDS[label]) for _ in range(3)]
    words += [rng.choice(PLAIN) for _ in range(rng.randint(2, 15))]
    words.append(str(rng.randint(0, 10**7)))  # no row twice
    rng.shuffle(words)
    return {"text": " ".join(words), "label": label}


def order(config: RunConfig, units: Sequence[Unit] | None = None) -> dict[str, Any]:
    """What the supervisor would tell a worker."""
    chosen = planned_units(config) if units is None else units
    return {
        "config": config.model_dump(mode="json"),
        "units": [[unit.variant, unit.seed] for unit in chosen],
        "signature": "tiny",
        "processes": 1,
        "device": "cpu",
    }


def train_here(config: RunConfig, *, flag: Any, units: Sequence[Unit] | None = None) -> int:
    """Be the worker, in this process: saves the imports. Returns its exit code."""
    state = Layout.of(config).state
    state.mkdir(parents=True, exist_ok=True)
    return work(order(config, units), state=state, rank=0, flag=flag)
