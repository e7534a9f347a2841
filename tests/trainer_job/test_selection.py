"""The choice is made on validation alone, needs significance, and is explained in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer_job.selection import Predictions, best_seed, compare, select, standard_error, verdict

RNG = np.random.default_rng(5)
GOLD = RNG.integers(0, 3, size=600)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for each test, whichever ran before it."""
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(6))


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


def test_only_common_seeds_are_compared_seed_by_seed() -> None:
    """Seed 1 of `none` is missing: its seeds 0 and 2 meet seeds 0 and 2, not 0 and 1."""
    none, moe = noisy(0.7, 3), noisy(0.7, 3)
    moe[1] = GOLD  # the run without a partner, right everywhere
    kept = Predictions(GOLD, {"none": none[[0, 2]], "moe": moe}, {"none": [0, 2], "moe": [2, 1, 0]})
    (found,) = compare("validation", kept, samples=200)
    whole = Predictions(GOLD, {"none": none[[2, 0]], "moe": moe[[0, 2]]})
    (expected,) = compare("validation", whole, samples=200)
    assert found["seeds"] == 2
    assert found["delta"] == pytest.approx(expected["delta"])
    assert abs(found["delta"]) < 0.1
    assert found["mcnemar"] == expected["mcnemar"]


def test_as_many_seeds_are_still_paired_by_their_numbers() -> None:
    """One failed its seed 0, the other its seed 2; only seed 1 is common, and equal."""
    runs = noisy(0.7, 3)
    kept = Predictions(GOLD, {"none": runs[:2], "moe": runs[1:]}, {"none": [0, 1], "moe": [1, 2]})
    (found,) = compare("validation", kept, samples=200)
    assert (found["seeds"], found["delta"]) == (1, 0.0)
    assert found["mcnemar"]["only_a"] == found["mcnemar"]["only_b"] == 0


def test_without_a_common_seed_there_is_no_comparison_and_no_choice_of_it() -> None:
    kept = Predictions(GOLD, {"none": noisy(0.3), "moe": noisy(0.99)}, {"none": [0], "moe": [1]})
    comparisons = compare("validation", kept, samples=200)
    assert comparisons == []
    units = [
        {**record, "seed": seed} for record, seed in zip(records(none=[0.3], moe=[0.99]), (0, 1), strict=True)
    ]
    chosen = select(units, comparisons)
    assert chosen is not None
    assert chosen["variant"] == "none"
    assert "no variant was compared" in chosen["reason"]


def test_the_reason_gives_means_over_the_seeds_that_were_compared() -> None:
    units = records(none=[0.70, 0.10], moe=[0.74])  # seed 1 of moe failed
    chosen = select(units, against(moe=(0.04, 0.01)))
    assert chosen is not None
    assert "0.740 against 0.700 of `none` (+0.040" in chosen["reason"]
