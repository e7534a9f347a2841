"""From a tiny random checkpoint of each further family through the job to a bundle that answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serving.engines.choice import Wishes
from serving.loading import load
from serving.types import EngineItem, Truncation
from stratified_models.testing import tiny_backbone
from tests.trainer_job.tiny import DOMAINS, Tiny, make_tiny, train_here
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, Unit

SETTINGS = ("training.max_steps=6", "training.evaluations=1", "training.test_given_domain=false")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    ("family", "variant"), [("bert", "layers"), ("roberta", "attention"), ("gpt2", "moe")]
)
def test_a_tiny_checkpoint_becomes_a_served_model(
    family: str, variant: str, tiny: Tiny, tmp_path: Path
) -> None:
    backbone = tiny_backbone(tmp_path / "backbone", family=family, width=16, layers=4, heads=2)
    config = tiny.config(
        tmp_path, *SETTINGS, f"model.backbone={backbone}", f"variants=[{variant}]", "seeds=[0]"
    )
    assert train_here(config, flag=StopFlag(None)) == 0
    bundle = Layout.of(config).unit(Unit(variant, 0)) / "bundle"
    steps: list[str] = []
    loaded = load(
        bundle, wishes=Wishes(engine="torch", device="cpu"), clock=time.monotonic, announce=steps.append
    )
    texts = ("A good film.", "bad " * 60)
    encoded = [loaded.encoder.encode(text, Truncation.TAIL) for text in texts]
    items = [EngineItem(ids=tuple(row.ids)) for row in encoded]
    outputs = loaded.engine.run(items)
    assert [len(output.domain_logits) for output in outputs] == [len(DOMAINS)] * 2
    for item, output in zip(items, outputs, strict=True):
        alone = loaded.engine.run([item])[0]
        assert alone.logits == pytest.approx(output.logits, abs=1e-5)
