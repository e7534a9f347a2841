"""Tests between models agree with scipy, statsmodels and simulations of their level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from trainer_job.significance import holm, mcnemar, minimum_detectable_difference, paired_bootstrap


def pair(n: int = 500, *, better: float = 0.05, seed: int = 0) -> tuple[Any, Any, Any]:
    """Two models that share most of their mistakes; the first is right more often."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 3, n)
    hard = rng.random(n) < 0.25
    wrong = (gold + 1) % 3
    first = np.where(hard & (rng.random(n) > better * 4), wrong, gold)
    second = np.where(hard | (rng.random(n) < 0.02), wrong, gold)
    return first, second, gold


def test_accuracy_interval_agrees_with_scipys_percentile_bootstrap() -> None:
    first, second, gold = pair()
    mine = paired_bootstrap(first, second, gold, "accuracy", samples=4000, seed=1)
    scores = (first == gold).astype(float) - (second == gold)
    theirs = bootstrap((scores,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert mine["delta"] == pytest.approx(scores.mean())
    assert mine["ci95"] == pytest.approx([theirs.low, theirs.high], abs=0.004)


def test_macro_f1_agrees_with_resampling_by_hand() -> None:
    first, second, gold = pair(200)
    mine = paired_bootstrap(first, second, gold, "macro_f1", samples=2000, seed=1)
    rng = np.random.default_rng(3)
    deltas = []
    for _ in range(250):
        rows = rng.integers(0, 200, 200)
        deltas.append(
            f1_score(gold[rows], first[rows], average="macro")
            - f1_score(gold[rows], second[rows], average="macro")
        )
    expected = f1_score(gold, first, average="macro") - f1_score(gold, second, average="macro")
    assert mine["delta"] == pytest.approx(expected)
    assert mine["ci95"] == pytest.approx(np.quantile(deltas, [0.025, 0.975]), abs=0.015)


def test_equal_models_differ_by_nothing() -> None:
    first, _, gold = pair()
    assert paired_bootstrap(first, first, gold, "macro_f1", samples=200) == {
        "delta": 0.0,
        "ci95": [0.0, 0.0],
        "p": 1.0,
        "samples": 200,
    }


def test_a_clear_difference_is_found_and_p_is_never_zero() -> None:
    first, second, gold = pair(2000, better=0.2)
    found = paired_bootstrap(first, second, gold, "accuracy", samples=999)
    assert found["ci95"][0] > 0
    assert found["p"] == pytest.approx(2 / 1000)
    turned = paired_bootstrap(second, first, gold, "accuracy", samples=999)
    assert turned["delta"] == pytest.approx(-found["delta"])
    assert turned["p"] == found["p"]


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 400)
    runs = np.stack([np.where(rng.random(400) < error, 1 - gold, gold) for error in (0.05, 0.15, 0.25, 0.35)])
    steady = np.stack([np.where(rng.random(400) < 0.2, 1 - gold, gold) for _ in range(4)])
    several = paired_bootstrap(runs, steady, gold, "accuracy", samples=2000)
    low, high = several["ci95"]
    single = paired_bootstrap(runs[1], steady[1], gold, "accuracy", samples=2000)["ci95"]
    assert high - low > 1.5 * (single[1] - single[0])
    assert several["delta"] == pytest.approx((runs == gold).mean() - (steady == gold).mean())


def test_unequal_numbers_of_seeds_and_small_chunks_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, gold = pair(100)
    whole = paired_bootstrap(np.stack([first, second, first]), second, gold, "accuracy", samples=300, seed=5)
    monkeypatch.setattr("trainer_job.significance.CHUNK", 100)
    parts = paired_bootstrap(np.stack([first, second, first]), second, gold, "accuracy", samples=300, seed=5)
    assert parts["delta"] == whole["delta"]
    assert parts["ci95"] == pytest.approx(whole["ci95"], abs=0.03)


@pytest.mark.parametrize(("rows", "labels"), [(3, 4), (0, 0)])
def test_shapes_that_do_not_fit_are_refused(rows: int, labels: int) -> None:
    with pytest.raises(ValueError, match=r"do not fit labels .*give \(n,\) or \(seeds, n\)"):
        paired_bootstrap(np.zeros(rows), np.zeros(rows), np.zeros(labels), "accuracy")


def test_bootstrap_holds_its_level() -> None:
    rejected = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        gold = rng.integers(0, 2, 120)
        first, second = (np.where(rng.random(120) < 0.2, 1 - gold, gold) for _ in range(2))
        rejected += paired_bootstrap(first, second, gold, "accuracy", samples=300, seed=seed)["p"] < 0.05
    assert rejected / 150 < 0.10


def test_mcnemar_exact_is_scipys_binomial_test() -> None:
    first, second, gold = pair(better=0.02)
    found = mcnemar(first, second, gold)
    total = found["only_a"] + found["only_b"]
    assert found["p_exact"] == pytest.approx(binomtest(found["only_a"], total, 0.5).pvalue)
    assert found["p"] < found["p_exact"]


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_that_of_statsmodels(seed: int) -> None:
    first, second, gold = pair(better=0.02, seed=seed)
    right, other = first == gold, second == gold
    table = [[int(((right == a) & (other == b)).sum()) for b in (True, False)] for a in (True, False)]
    theirs = contingency_tables.mcnemar(table, exact=True)
    found = mcnemar(first, second, gold)
    assert (found["only_a"], found["only_b"]) == (table[0][1], table[1][0])
    assert found["p_exact"] == pytest.approx(theirs.pvalue)


def test_mcnemar_mid_p_of_a_known_table() -> None:
    # 1 against 7: two-sided exact 2·(1+8)/256, mid-p subtracts the chance of 1 itself
    gold = np.zeros(20, dtype=int)
    first, second = np.zeros(20, dtype=int), np.zeros(20, dtype=int)
    first[:1], second[1:8] = 1, 1
    found = mcnemar(first, second, gold)
    assert (found["only_a"], found["only_b"]) == (7, 1)
    assert found["p_exact"] == pytest.approx(18 / 256)
    assert found["p"] == pytest.approx(10 / 256)


def test_mcnemar_without_a_difference_is_one() -> None:
    assert mcnemar([0, 1], [0, 1], [0, 0]) == {"only_a": 0, "only_b": 0, "p": 1.0, "p_exact": 1.0}


def test_holm_of_a_known_family() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert adjusted == pytest.approx(list(multipletests(values, method="holm")[1]))
    assert all(raw <= new <= 1 for raw, new in zip(values, adjusted, strict=True))
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.asarray(adjusted)[order]) >= 0).all()


def test_minimum_detectable_difference_has_its_power() -> None:
    difference = minimum_detectable_difference(0.1, 1000)
    assert difference == pytest.approx(2.8016 * (0.1 / 1000) ** 0.5, rel=1e-3)
    rng = np.random.default_rng(0)
    gains = rng.multinomial(1000, [0.05 + difference / 2, 0.05 - difference / 2, 0.9], size=2000)
    z = (gains[:, 0] - gains[:, 1]) / np.sqrt(gains[:, 0] + gains[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.05)


def test_mcnemar_refuses_runs_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match=r"2 runs of one and 1 of the other; give those of common seeds"):
        mcnemar(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros(3))
