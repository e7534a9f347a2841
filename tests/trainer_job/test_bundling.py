"""Bundles: the facts of the record, a model card for people, and the variant's best seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stratified_models import load_tokenizer
from stratified_models.bundle import check_parity, load_model, read_bundle
from tests.trainer_job.conftest import Swept
from trainer_job.bundling import refresh_variant
from trainer_job.files import read_json
from trainer_job.units import Layout, config_hash


@pytest.mark.parametrize("variant", ["none", "moe"])
def test_a_bundle_answers_as_it_did_when_it_was_written(swept: Swept, variant: str) -> None:
    bundle = read_bundle(swept.layout.variant(variant))
    tokenizer = load_tokenizer(bundle.path, max_length=bundle.manifest.max_length)
    assert check_parity(bundle, load_model(bundle), tokenizer) < 1e-4


def test_the_manifest_tells_what_the_record_tells(swept: Swept) -> None:
    entry = swept.record["variants"]["routing"]
    manifest = read_bundle(swept.layout.variant("routing")).manifest
    unit = next(
        u for u in swept.record["units"] if (u["variant"], u["seed"]) == ("routing", entry["best_seed"])
    )
    assert manifest.metrics["test"]["macro_f1"] == pytest.approx(unit["test"]["macro_f1"])
    assert manifest.out_of_domain.threshold == pytest.approx(
        unit["calibration"]["out_of_domain"]["threshold"]
    )
    assert manifest.backbone.sha256 == unit["backbone"]["sha256"]
    assert manifest.training["weights_sha256"] == unit["weights_sha256"]
    assert np.isclose(sum(domain.share for domain in manifest.domains), 1)
    assert {domain.name: domain.labels for domain in manifest.domains}["films"] == ("negative", "positive")


def test_the_card_names_data_figures_and_limits(swept: Swept) -> None:
    card = (swept.layout.variant("none") / "README.md").read_text(encoding="utf-8")
    for part in (
        "films",
        "shop",
        "macro-F1",
        "## Limits",
        "## Data",
        "temperature",
        "AutoModelForSequenceClassification",
    ):
        assert part in card


def test_the_variant_follows_the_best_seed(swept: Swept, tmp_path: Path) -> None:
    shutil.copytree(swept.layout.results, tmp_path / "results")
    layout = Layout(tmp_path / "results", tmp_path / "logs")
    digest = config_hash(swept.config)
    records = {seed: read_json(layout.results / f"moe/seed-{seed}/unit.json") or {} for seed in (0, 1)}
    for better in (0, 1):
        record = {**records[better], "validation": {**records[better]["validation"], "macro_f1": 2.0}}
        refresh_variant(layout, record, config_digest=digest)
        assert read_bundle(layout.variant("moe")).manifest.seed == better
