"""Own parameters exactly, and growth and operations as the tables in docs/models.md say."""

from __future__ import annotations

import pytest
import torch
from transformers import DistilBertConfig

from stratified_models import (
    VARIANTS,
    ModelError,
    StratifiedConfig,
    StratifiedForSequenceClassification,
    flops_per_token,
)

DOMAINS = ["a", "b", "c", "d", "e"]
OWN = {
    "none": (0, 0),
    "attention": (445_824, 224_640),
    "routing": (1_819_808, 910_496),
    "layers": (98_400, 49_248),
    "moe": (37_785_664, 9_455_680),
}
TOTAL = (66_959_639, 22_715_543)
GROWTH = {
    "attention": (0.71, 1.09),
    "routing": (2.76, 4.11),
    "layers": (0.19, 0.32),
    "moe": (42.4, 31.3),
}
OPERATIONS = {
    "attention": (1.3, 2.9),
    "routing": (4.4, 8.8),
    "layers": (0.4, 0.9),
    "moe": (22, 22),
}


def test_no_variant_is_left_out() -> None:
    assert OWN.keys() == set(VARIANTS)
    assert GROWTH.keys() == OPERATIONS.keys() == set(VARIANTS[1:])


def config(variant: str, width: int) -> StratifiedConfig:
    encoder = DistilBertConfig(dim=width, hidden_dim=4 * width)
    return StratifiedConfig(backbone_config=encoder, variant=variant, domains=DOMAINS)


def count(variant: str, width: int) -> tuple[int, int]:
    with torch.device("meta"):
        model = StratifiedForSequenceClassification(config(variant, width))
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, sum(parameter.numel() for parameter in model.variant.parameters())


@pytest.mark.parametrize("variant", OWN)
def test_own_parameters_are_exact(variant: str) -> None:
    for column, width in enumerate((768, 384)):
        total, own = count(variant, width)
        assert own == OWN[variant][column]
        if variant == "none":
            assert total == TOTAL[column]
        else:
            growth = 100 * (total / TOTAL[column] - 1)
            assert abs(growth - GROWTH[variant][column]) < 0.06


@pytest.mark.parametrize("variant", OPERATIONS)
def test_operations_grow_as_the_table_says(variant: str) -> None:
    for column, width in enumerate((768, 384)):
        base = flops_per_token(config("none", width), 64)
        added = 100 * (flops_per_token(config(variant, width), 64) / base - 1)
        assert abs(added - OPERATIONS[variant][column]) < (1 if variant == "moe" else 0.15)


def test_every_expert_costs_three_times_the_two() -> None:
    base, moe = flops_per_token(config("none", 768), 64), config("moe", 768)
    assert abs(100 * (flops_per_token(moe, 64, dense_experts=True) / base - 1) - 66) < 1


def test_longer_texts_cost_more_a_token() -> None:
    assert flops_per_token(config("none", 384), 512) > flops_per_token(config("none", 384), 64)


def test_a_variant_whose_cost_is_not_written_down_says_so() -> None:
    unknown = config("routing", 384)
    unknown.variant = "sixth"
    with pytest.raises(ModelError, match="cost of variant 'sixth' is not written down"):
        flops_per_token(unknown, 64)
