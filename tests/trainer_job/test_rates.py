"""Learning rates fall with depth, block by block, and reach every parameter once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stratified_models.testing import tiny_model
from trainer_job.config import TrainingConfig
from trainer_job.rates import depth_factors, parameter_groups


@pytest.mark.parametrize("variant", ["none", "moe"])
def test_each_block_learns_at_a_part_of_the_rate_of_the_one_above(tmp_path: Path, variant: str) -> None:
    model = tiny_model(tmp_path, variant=variant)
    blocks = model.config.backbone_config.num_hidden_layers
    factors = depth_factors(model, 0.5)
    for index in range(blocks):
        names = [name for name in factors if name.startswith("backbone.") and f".{index}." in name]
        assert names
        assert {factors[name] for name in names} == {0.5 ** (blocks - 1 - index)}
    embeddings = [name for name in factors if "embeddings" in name]
    assert {factors[name] for name in embeddings} == {0.5**blocks}
    assert factors["classifier.weight"] == 1


def test_pretrained_experts_learn_with_their_block_and_new_modules_at_their_own_rate(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, variant="moe")
    training = TrainingConfig(learning_rate=1.0, layer_decay=0.5, new_multiplier=10)
    groups = parameter_groups(model, training, decayed=set())
    rate = {id(value): group["lr"] for group in groups for value in group["params"]}
    by_name = {name: rate[id(value)] for name, value in model.named_parameters()}
    pretrained = model.parameter_multiplier_groups()["backbone"]
    experts = [name for name in pretrained if name.startswith("variant.")]
    assert experts
    assert all(by_name[name] <= 1 for name in experts)
    assert len({by_name[name] for name in experts}) > 1
    assert by_name["classifier.weight"] == 10


def test_without_decay_all_blocks_learn_alike(tmp_path: Path) -> None:
    assert set(depth_factors(tiny_model(tmp_path, variant="none"), 1.0).values()) == {1.0}
