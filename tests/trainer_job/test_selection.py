"""The choice is made on validation alone, needs significance, and is explained in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer_job.selection import Predictions, best_seed, compare, select, standard_error, verdict

RNG = np.random.default_rng(5)
GOLD = RNG.integers(0, 3, size=600)


def noisy(right: float, seeds: int = 1) -> np.ndarray:
    """Predictions that are right with this probability, else any class."""
    rows = [np.where(RNG.random(600) < right, GOLD, RNG.integers(0, 3, size=600)) for _ in range(seeds)]
    return np.stack(rows)


def records(**scores: list[float]) -> list[dict[str, Any]]:
    return [
        {"variant": name, "seed": seed, "validation": {"macro_f1": value}}
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]


def against(**better: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"a": name, "b": "none", "split": "validation", "delta": delta, "p_corrected": p}
        for name, (delta, p) in better.items()
    ]


def test_a_better_variant_is_told_from_an_equal_one() -> None:
    predictions = Predictions(GOLD, {"none": noisy(0.6, 2), "moe": noisy(0.85, 2), "layers": noisy(0.6, 2)})
    found = {entry["a"]: entry for entry in compare("validation", predictions, samples=500)}
    assert found["moe"]["delta"] > 0.1
    assert found["moe"]["p_corrected"] < 0.05
    assert found["moe"]["ci95"][0] > 0
    assert found["layers"]["p_corrected"] > 0.05
    assert all(entry["p_corrected"] >= entry["p"] for entry in found.values())


def test_there_is_nothing_to_compare_without_the_baseline() -> None:
    assert compare("test", Predictions(GOLD, {"moe": noisy(0.5)}), samples=50) == []


def test_the_standard_error_shrinks_with_rows() -> None:
    predicted = noisy(0.6)
    whole = standard_error(predicted, GOLD, samples=400)
    part = standard_error(predicted[:, :60], GOLD[:60], samples=400)
    assert 0.01 < whole < 0.03
    assert 2 < part / whole < 5


def test_none_is_served_unless_a_variant_is_significantly_better() -> None:
    units = records(none=[0.70], moe=[0.72], layers=[0.69])
    chosen = select(units, against(moe=(0.02, 0.30), layers=(-0.01, 0.01)))
    assert chosen is not None
    assert (chosen["variant"], chosen["seed"], chosen["path"]) == ("none", 0, "none")
    assert "nearest is moe (+0.020, corrected p = 0.300)" in chosen["reason"]


def test_the_best_of_the_significant_ones_is_served_with_its_best_seed() -> None:
    units = records(none=[0.70, 0.71], moe=[0.74, 0.76], layers=[0.73, 0.73])
    chosen = select(units, against(moe=(0.045, 0.01), layers=(0.025, 0.02)))
    assert chosen is not None
    assert (chosen["variant"], chosen["seed"]) == ("moe", 1)
    assert "corrected p = 0.010" in chosen["reason"]


def test_test_figures_never_choose() -> None:
    units = records(none=[0.70], moe=[0.70])
    entries = [{**entry, "split": "test"} for entry in against(moe=(0.2, 0.001))]
    chosen = select(units, entries)
    assert chosen is not None
    assert chosen["variant"] == "none"
    assert "no variant was compared" in chosen["reason"]


def test_without_the_baseline_the_best_on_validation_is_served() -> None:
    chosen = select(records(moe=[0.5], layers=[0.6]), [])
    assert chosen is not None
    assert chosen["variant"] == "layers"
    assert "was not trained" in chosen["reason"]


def test_nothing_finished_selects_nothing() -> None:
    assert select([], []) is None
    assert verdict(None, [], {}, {}) == "Nothing is finished yet."


def test_equal_seeds_give_the_lowest() -> None:
    assert best_seed(records(moe=[0.5, 0.5, 0.4]))["seed"] == 0


@pytest.mark.parametrize(
    ("ours", "rival", "word"),
    [(0.7, 0.5, "beats"), (0.51, 0.50, "is not clearly better"), (0.4, 0.5, "does not beat")],
)
def test_the_verdict_compares_with_the_baselines(ours: float, rival: float, word: str) -> None:
    selected = select(records(none=[0.7], moe=[0.7]), against(moe=(0.0, 1.0)))
    test = {
        "a": "moe",
        "b": "none",
        "split": "test",
        "delta": -0.05,
        "se": 0.01,
        "n": 100,
        "seeds": 1,
        "detectable_accuracy_difference": 0.031,
    }
    variants = {"none": {"test": {"macro_f1": {"mean": ours, "se": 0.02}}}}
    words = verdict(selected, [test], variants, {"tfidf_logreg": {"test": {"macro_f1": rival}}})
    assert f"`none` ({ours:.3f} ± 0.020) {word}" in words
    assert "0 of 1 variants are within two standard errors" in words
    assert "about 3.1 points" in words
