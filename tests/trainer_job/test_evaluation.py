"""From predictions to figures: calibration, reliability, strata, and a Parquet file that gives them again."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer_job.evaluation import (
    calibrate,
    metrics_of,
    read_predictions,
    reliability,
    scores,
    softmax,
    strata_of,
    write_predictions,
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


def test_predictions_come_back_in_order_of_row(tmp_path: Path) -> None:
    found = rows(50, strata=True)
    shuffled = {name: values[::-1] for name, values in found.items()}
    path = tmp_path / "predictions.parquet"
    write_predictions(
        path, {"validation": rows(20), "test": shuffled, "given": None}, labels=LABELS, temperature=2.0
    )
    back = read_predictions(path, "test")
    assert back["row_id"].tolist() == list(range(50))
    assert (back["label"] == found["labels"]).all()
    assert (back["prediction"] == found["logits"].argmax(axis=1)).all()
    assert len(read_predictions(path, "validation")["label"]) == 20
    assert list(tmp_path.iterdir()) == [path]
