"""The configuration: derived sizes, its JSON, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, DistilBertConfig

from stratified_models import VARIANTS, ModelError, StratifiedConfig
from stratified_models.registry import VARIANT_CLASSES


def make(**options: Any) -> StratifiedConfig:
    return StratifiedConfig(**{"domains": ["a", "b"], **options})


def test_ranks_rise_to_half_of_the_coordinates() -> None:
    assert make().ranks == (4, 8, 12, 16, 20, 24, 28, 32)
    assert make(num_strata=4, gate_dim=16).ranks == (2, 4, 6, 8)
    assert min(make(num_strata=64, gate_dim=4).ranks) == 1


@pytest.mark.parametrize(("layers", "gate"), [(6, 2), (12, 4), (22, 7)])
def test_gate_layer_is_a_third(layers: int, gate: int) -> None:
    config = make(backbone_config=DistilBertConfig(n_layers=layers))
    assert config.gate_layer == gate
    assert config.stratified_blocks == tuple(range(gate, layers))


def test_json_round_trip_through_the_auto_class(tmp_path: Path) -> None:
    config = make(
        variant="moe", backbone_config=DistilBertConfig(dim=96, n_heads=4), domain_labels=[[0], [1, 2]]
    )
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, StratifiedConfig)
    again.name_or_path = ""
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.backbone_config, DistilBertConfig)
    assert again.labels == ("negative", "neutral", "positive")


def test_every_variant_has_a_class() -> None:
    assert set(VARIANTS) <= set(VARIANT_CLASSES)


def test_trainer_gathers_scores_alone() -> None:
    kept = {"logits", "domain_logits", "energy"}
    assert not kept & set(StratifiedConfig.keys_to_ignore_at_inference)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"variant": "bogus"}, "bogus"),
        ({"gate_dim": 1000}, "1000"),
        ({"num_strata": 0}, "num_strata 0"),
        ({"num_experts": 1}, "num_experts 1"),
        ({"domains": []}, "domains"),
        ({"domains": ["a", "a"]}, "domains"),
        ({"domain_labels": [[0], [7]]}, "7"),
        ({"domain_labels": [[0]]}, "domain_labels"),
        ({"id2label": {0: "only"}}, "only"),
        ({"id2label": {0: "x", 2: "y"}}, "labels"),
        ({"domain_dropout": 1.5}, "1.5"),
        ({"domain_loss": -0.1}, "-0.1"),
    ],
)
def test_refuses_with_value_and_cure(options: dict[str, Any], value: str) -> None:
    with pytest.raises(ModelError) as caught:
        make(**options)
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)
