"""From predictions to figures: calibration, reliability, strata, and a domain never seen."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainer_job.evaluation import (
    auroc,
    calibrate,
    figures_of,
    metrics_of,
    reliability,
    scores,
    softmax,
    strata_of,
)

LABELS = ("negative", "neutral", "positive")
CORPUS: Any = types.SimpleNamespace(
    labels=LABELS, domains=("films", "shop"), domain_labels=((0, 2), (0, 1, 2)), counts={}, sources={}
)


def rows(n: int = 300, *, seed: int = 0, strata: bool = False) -> dict[str, np.ndarray]:
    """Over-confident logits that are right about two times in three."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=n)
    logits = rng.normal(size=(n, 3)) * 4
    logits[np.arange(n), labels] += 4
    found = {
        "labels": labels,
        "domain_id": rng.integers(0, 2, size=n),
        "row_id": np.arange(n),
        "logits": logits,
        "domain_logits": rng.normal(size=(n, 2)),
        "energy": rng.normal(size=n),
    }
    if strata:
        found["occupancy"] = rng.dirichlet(np.ones(4), size=n)
        found["geometry"] = rng.normal(size=n)
    return found


def test_softmax_is_softer_at_a_higher_temperature() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0], [1.0, 1.0, 1.0]])
    assert softmax(logits)[0, 0] == pytest.approx(1)
    assert softmax(logits)[1] == pytest.approx([1 / 3] * 3)
    assert softmax(rows()["logits"], temperature=5).max() < softmax(rows()["logits"]).max()


def test_the_temperature_mends_overconfidence_and_the_threshold_is_a_quantile() -> None:
    found = rows(2000)
    calibration = calibrate(found, quantile=0.9)
    assert calibration["temperature"] > 1.5
    outside = found["energy"] > calibration["out_of_domain"]["threshold"]
    assert outside.mean() == pytest.approx(0.1, abs=0.01)


def test_scores_calibrate_on_validation_and_describe_test() -> None:
    figures = scores(rows(600), rows(500, seed=1), CORPUS, rows(500, seed=2))
    change = figures["calibration"]["test"]
    assert change["nll"]["after"] < change["nll"]["before"]
    assert figures["test"]["nll"] == pytest.approx(change["nll"]["after"])
    assert figures["test"]["n"] == figures["test_given_domain"]["n"] == 500
    assert scores(rows(), rows(), CORPUS, None)["test_given_domain"] is None


def test_reliability_bins_hold_every_row_once() -> None:
    found = rows()
    bins = reliability(found, temperature=2.0)
    assert sum(entry["n"] for entry in bins) == 300
    mean = sum(entry["n"] * entry["accuracy"] for entry in bins) / 300
    assert mean == pytest.approx(metrics_of(found, CORPUS)["accuracy"])


def test_strata_are_described_or_absent() -> None:
    assert strata_of(rows(), CORPUS) is None
    strata = strata_of(rows(strata=True), CORPUS)
    assert strata is not None
    assert np.sum(strata["occupancy"]) == pytest.approx(1)
    assert 1 < strata["effective"] <= 4
    assert strata["information_with_domain_nats"] >= 0


def test_a_held_out_domain_is_measured_and_told_apart() -> None:
    inside, outside = rows(400), rows(300, seed=3)
    outside["energy"] = outside["energy"] + 1.0
    outside["domain_id"] = np.full(300, -1)
    held = {"domain": "games", "label_ids": [0, 2]}
    splits = {"validation": rows(600, seed=5), "test": inside, "held_out": outside}
    figures = figures_of(splits, CORPUS, held_out=held, score="energy")
    found = figures["held_out"]
    strange, known = outside["energy"], inside["energy"]
    gold = np.r_[np.ones(300), np.zeros(400)]
    assert found["auroc"]["energy"] == pytest.approx(roc_auc_score(gold, np.r_[strange, known]))
    assert found["domain"] == "games"
    assert found["n"] == 300
    assert found["accuracy"] == pytest.approx((outside["logits"].argmax(1) == outside["labels"]).mean())
    assert found["flagged"]["held_out"] > found["flagged"]["known"]


def test_ties_count_half_in_the_area() -> None:
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auroc(np.array([2.0]), np.array([1.0, 0.0])) == 1.0
