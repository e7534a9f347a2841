"""What a domain's section may say: mappings that cannot work are refused before any file is opened."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from trainer_job.config import DataConfig, DomainConfig

FILES = {"kind": "files", "splits": {"train": "a.csv"}}
BINARY = {"0": "negative", "1": "positive"}


def domain(**settings: Any) -> DomainConfig:
    plain: dict[str, Any] = {"source": FILES, "label_map": BINARY, "labels": ["negative", "positive"]}
    return DomainConfig.model_validate({**plain, **settings})


def test_unquoted_yaml_numbers_and_truths_read_as_text() -> None:
    section = yaml.safe_load("{label_map: {0: negative, true: positive, 2.5: positive}, where: {kind: 1}}")
    read = domain(**section)
    assert read.label_map == {"0": "negative", "true": "positive", "2.5": "positive"}
    assert read.where == {"kind": "1"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_map": None}, "exactly one of label_map and thresholds"),
        ({"thresholds": {"negative": 0, "positive": 1}}, "exactly one of label_map and thresholds"),
        ({"label_map": None, "thresholds": {"negative": 1, "positive": 0}}, "set negative ≤ positive"),
        ({"labels": ["positive"]}, "at least two classes"),
        ({"label_map": {"0": "negative", "1": "happy"}}, r"label_map yields \['happy'\]"),
        (
            {"labels": ["negative", "neutral", "positive"]},
            r"labels \['neutral'\] are in no entry of label_map",
        ),
        ({"label_map": "yes"}, "valid dictionary"),
        ({"cap": {"train": 0}}, "greater than or equal to 1"),
        ({"source": {"kind": "web"}}, "hub"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_mappings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        domain(**settings)


def test_labels_outside_the_sweeps_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"declares labels \['negative'\], outside data\.labels"):
        DataConfig.model_validate({"labels": ["positive", "bad"], "domains": {"x": domain().model_dump()}})
