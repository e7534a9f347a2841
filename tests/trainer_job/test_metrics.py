"""Metrics agree with scikit-learn where it has them, and with a plain loop where it has not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from trainer_job import metrics
from trainer_job.metrics import (
    accuracy_standard_error,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)

LABELS = ("negative", "neutral", "positive")
DOMAINS = ("films", "tweets")


def sample(n: int = 400, *, seed: int = 0, scale: float = 2.0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2, n)
    gold = np.where(ids == 0, rng.choice([0, 2], n), rng.integers(0, 3, n))
    logits = scale * (np.eye(3)[gold] + rng.normal(size=(n, 3)))
    return logits, gold, ids


def measured(logits: Any, gold: Any, ids: Any, **settings: Any) -> dict[str, Any]:
    return evaluate(
        logits, gold, ids, domains=DOMAINS, label_names=LABELS, domain_labels=((0, 2), (0, 1, 2)), **settings
    )


def test_pooled_figures_agree_with_scikit_learn() -> None:
    logits, gold, ids = sample()
    found = measured(logits, gold, ids)
    said = logits.argmax(1)
    probabilities = np.exp(scipy_log_softmax(logits, axis=1))
    assert found["n"] == 400
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert found["macro_recall"] == pytest.approx(recall_score(gold, said, average="macro"))
    assert found["nll"] == pytest.approx(log_loss(gold, probabilities, labels=[0, 1, 2]))
    assert found["confusion"] == confusion_matrix(gold, said, labels=[0, 1, 2]).tolist()
    assert found["brier"] == pytest.approx(np.mean(np.sum((probabilities - np.eye(3)[gold]) ** 2, axis=1)))
    assert found["neutral_share"] == pytest.approx((said == 1).mean())
    assert found["accuracy_se"] == pytest.approx(math.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400))


def test_a_binary_domain_is_measured_over_its_own_labels() -> None:
    logits, gold, ids = sample()
    films = measured(logits, gold, ids)["per_domain"]["films"]
    mine = ids == 0
    said = logits[mine].argmax(1)
    expected = f1_score(gold[mine], said, labels=[0, 2], average="macro")
    assert films["macro_f1"] == pytest.approx(expected)
    assert films["macro_f1"] > f1_score(gold[mine], said, labels=[0, 1, 2], average="macro", zero_division=0)
    assert films["neutral_share"] == pytest.approx((said == 1).mean())
    assert films["macro_recall"] == pytest.approx(
        recall_score(gold[mine], said, labels=[0, 2], average="macro", zero_division=0)
    )


def test_the_worst_domain_and_domain_accuracy() -> None:
    logits, gold, ids = sample()
    ids[:10] = -1
    guesses = np.eye(2)[np.where(ids < 0, 0, ids)]
    guesses[10:20] = guesses[10:20, ::-1]
    found = measured(logits, gold, ids, domain_said=guesses.argmax(1))
    assert found["domain_accuracy"] == pytest.approx(380 / 390)
    worst = min(found["per_domain"].items(), key=lambda item: item[1]["macro_f1"])
    assert found["worst_domain"] == {"name": worst[0], "macro_f1": worst[1]["macro_f1"]}
    assert sum(domain["n"] for domain in found["per_domain"].values()) == 390


def test_unknown_domains_count_only_in_the_pool() -> None:
    logits, gold, ids = sample()
    found = measured(logits, gold, np.full_like(ids, -1), domain_said=np.zeros(400, dtype=int))
    assert found["per_domain"] == {}
    assert found["worst_domain"] is None
    assert found["domain_accuracy"] is None
    assert measured(logits, gold, ids)["domain_accuracy"] is None


def test_other_label_sets_have_no_neutral_share() -> None:
    logits, gold, ids = sample()
    found = evaluate(
        logits[:, [0, 2]],
        gold // 2,
        ids,
        domains=DOMAINS,
        label_names=("bad", "good"),
        domain_labels=((0, 1),) * 2,
    )
    assert found["neutral_share"] is None


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        measured(np.zeros((0, 3)), [], [])


def test_temperature_moves_calibration_but_no_prediction() -> None:
    logits, gold, ids = sample(scale=6)
    sharp, soft = measured(logits, gold, ids), measured(logits, gold, ids, temperature=4.0)
    assert sharp["confusion"] == soft["confusion"]
    assert sharp["ece"] == sharp["ece_raw"] == soft["ece_raw"] > soft["ece"]
    assert sharp["nll"] > soft["nll"]


def test_ece_agrees_with_a_loop_over_fifteen_bins() -> None:
    logits, gold, _ = sample()
    probabilities = np.exp(scipy_log_softmax(logits, axis=1))
    confidence, right = probabilities.max(1), probabilities.argmax(1) == gold
    total = 0.0
    for place in range(15):
        inside = (confidence > place / 15) & (confidence <= (place + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, gold) == pytest.approx(total)
    assert expected_calibration_error(np.eye(3)[gold], gold) == pytest.approx(0)
    assert expected_calibration_error(np.eye(3)[(gold + 1) % 3], gold) == pytest.approx(1)


def test_masked_classes_are_never_predicted_and_cost_nothing() -> None:
    logits, gold, ids = sample()
    masked = np.where((ids == 0)[:, None] & (np.arange(3) == 1), -np.inf, logits)
    found = measured(masked, gold, ids)
    assert found["per_domain"]["films"]["neutral_share"] == 0
    assert math.isfinite(found["nll"])
    assert math.isfinite(fit_temperature(masked, gold))


def test_a_class_without_gold_rows_has_no_recall() -> None:
    table = np.array([[3, 1], [0, 0]])
    assert metrics.macro_recall(table, (0, 1)) == pytest.approx(0.75)
    assert math.isnan(metrics.macro_recall(table, (1,)))
    assert math.isnan(accuracy_standard_error(0.5, 0))


def test_temperature_is_recovered_from_logits_that_were_scaled() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 3)) * 2
    gold = (np.exp(scipy_log_softmax(logits, axis=1)).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert fit_temperature(logits * 3, gold) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(logits / 2, gold) == pytest.approx(0.5, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 40), scale=st.floats(0.01, 50))
def test_temperature_never_makes_its_own_rows_worse(seed: int, n: int, scale: float) -> None:
    logits, gold, _ = sample(n, seed=seed, scale=scale)
    temperature = fit_temperature(logits, gold)
    assert 0.05 <= temperature <= 20
    fitted = negative_log_likelihood(logits, gold, temperature=temperature)
    assert fitted <= negative_log_likelihood(logits, gold)


def test_temperature_is_one_where_it_cannot_be_fitted() -> None:
    assert fit_temperature(np.zeros((0, 3)), []) == 1.0
    assert fit_temperature([[-np.inf, 0.0]], [0]) == 1.0
