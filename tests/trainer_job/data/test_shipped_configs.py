"""The shipped configurations are valid, and hold what this folder promises of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import trainer_job
from trainer_job.config import HubSource, RunConfig

CONFIGS = Path(trainer_job.__file__).parent / "configs"
NAMES = ("quickstart", "reference", "volume")


@pytest.mark.parametrize("name", NAMES)
def test_each_has_five_domains_with_explicit_labels(name: str) -> None:
    config = RunConfig.model_validate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")))
    assert len(config.data.domains) == 5
    assert name == "quickstart" or config.data.train_samples == 4000
    for domain in config.data.domains.values():
        assert set(domain.labels) in ({"negative", "positive"}, {"negative", "neutral", "positive"})


@pytest.mark.parametrize("name", NAMES)
def test_no_domain_leans_on_another(name: str) -> None:
    """A copy may keep whichever it has; an anchor in one that is taken out would leave others unreadable."""
    tokens = list(yaml.scan((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")))
    assert len(tokens) > 50
    assert [token for token in tokens if isinstance(token, yaml.AnchorToken | yaml.AliasToken)] == []


def test_every_hub_revision_is_a_commit() -> None:
    config = RunConfig.model_validate(
        yaml.safe_load((CONFIGS / "reference.yaml").read_text(encoding="utf-8"))
    )
    assert re.fullmatch(r"[0-9a-f]{40}", config.model.revision or "")
    for domain in config.data.domains.values():
        assert isinstance(domain.source, HubSource)
        assert re.fullmatch(r"[0-9a-f]{40}", domain.source.revision or "")


def test_tweet_eval_maps_one_to_neutral() -> None:
    config = RunConfig.model_validate(
        yaml.safe_load((CONFIGS / "reference.yaml").read_text(encoding="utf-8"))
    )
    assert config.data.domains["tweet_eval"].label_map == {"0": "negative", "1": "neutral", "2": "positive"}
