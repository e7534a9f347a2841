"""The manifest's JSON: what goes in comes out, and nonsense is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stratified_models import BundleCorrupt, ModelError
from stratified_models.manifest import (
    Backbone,
    Domain,
    FileEntry,
    Manifest,
    OutOfDomain,
    Parity,
    manifest_from_json,
    manifest_to_json,
)

MANIFEST = Manifest(
    name="m",
    version="1",
    created="2026-01-01T00:00:00Z",
    variant="moe",
    seed=3,
    backbone=Backbone("b", "0"),
    labels=("negative", "neutral", "positive"),
    domains=(Domain("imdb", ("negative", "positive"), 0.25),),
    max_length=64,
    temperature=1.25,
    out_of_domain=OutOfDomain("energy", 0.5, 0.99),
    metrics={"test": {"macro_f1": 0.5}},
    parity=Parity(("a",), ((0.1, 0.2, 0.3),)),
    files={"config.json": FileEntry("00", 5)},
)


def test_round_trip() -> None:
    assert manifest_from_json(manifest_to_json(MANIFEST), source="x") == MANIFEST


def test_json_is_stable_and_plain() -> None:
    assert manifest_to_json(MANIFEST) == manifest_to_json(replace(MANIFEST))
    assert json.loads(manifest_to_json(MANIFEST))["domains"][0]["name"] == "imdb"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ModelError, match="temperature"):
        replace(MANIFEST, temperature=temperature)


def test_threshold_is_finite() -> None:
    with pytest.raises(ModelError, match="threshold"):
        replace(MANIFEST, out_of_domain=OutOfDomain("energy", float("nan"), 0.9))


def test_domains_have_known_labels() -> None:
    with pytest.raises(ModelError, match="mixed"):
        replace(MANIFEST, domains=(Domain("imdb", ("mixed",), 1.0),))


def test_metrics_are_finite_json() -> None:
    for value in (float("nan"), object()):
        with pytest.raises(ModelError, match="JSON"):
            manifest_to_json(replace(MANIFEST, metrics={"f1": value}))


@pytest.mark.parametrize("field", ["name", "domains", "temperature", "out_of_domain", "parity", "files"])
def test_a_field_of_the_wrong_shape_is_named(field: str) -> None:
    raw = json.loads(manifest_to_json(MANIFEST))
    for wrong in (None, 7):
        broken = {**raw, field: wrong}
        if field == "name" or (field == "temperature" and wrong == 7):
            continue
        with pytest.raises(BundleCorrupt, match="schema 1"):
            manifest_from_json(json.dumps(broken).encode(), source="manifest.json")
    del raw[field]
    with pytest.raises(BundleCorrupt, match="KeyError"):
        manifest_from_json(json.dumps(raw).encode(), source="manifest.json")
