"""Metrics: what a set of logits is worth, for each domain and pooled; pure numpy but for one scipy minimiser.

It does not know models, splits or files. Legend: `n` rows, `C` classes, `N` domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer_job.domain_inference import domain_inference

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ECE_BINS = 15
TEMPERATURES = (0.05, 20.0)


def log_softmax(logits: npt.ArrayLike, *, temperature: float = 1.0) -> Floats:
    """Log-probabilities (n, C) of logits (n, C) / temperature; a logit of -inf stays -inf."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Rows by gold class (first axis) and predicted class (second), (C, C)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def macro_f1(confusion: Ints, classes: Sequence[int]) -> float:
    """Mean F1 over `classes`; a class without gold or predicted rows counts 0, as in scikit-learn.

    Predictions outside `classes` still cost recall.
    """
    hits = np.diag(confusion).astype(np.float64)
    size = confusion.sum(axis=0) + confusion.sum(axis=1)
    scores = np.divide(2.0 * hits, size, out=np.zeros_like(hits), where=size > 0)
    return float(scores[list(classes)].mean())


def macro_recall(confusion: Ints, classes: Sequence[int]) -> float:
    """Mean recall over those of `classes` that have gold rows (TweetEval's measure); NaN without any."""
    gold = confusion.sum(axis=1)
    present = [place for place in classes if gold[place] > 0]
    return float(np.mean(np.diag(confusion)[present] / gold[present])) if present else float("nan")


def brier(probabilities: Floats, labels: Ints) -> float:
    """Mean squared distance to the one-hot label, summed over classes: 0 best, 2 worst (Brier 1950)."""
    gold = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - gold) ** 2).sum(axis=1).mean())


def expected_calibration_error(probabilities: Floats, labels: Ints, *, bins: int = ECE_BINS) -> float:
    """ECE of the top class over equal-width bins (lower, upper] (Guo et al. 2017, eq. 3): 0 best.

    Args:
        probabilities: (n, C), rows sum to one.
        labels: (n,) gold classes.
        bins: 15 by default.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def accuracy_standard_error(accuracy: float, n: int) -> float:
    """Standard error of an accuracy over `n` independent rows, as a fraction: √(a(1-a)/n); NaN without
    rows."""
    return float(np.sqrt(accuracy * (1.0 - accuracy) / n)) if n > 0 else float("nan")


def negative_log_likelihood(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, temperature: float = 1.0
) -> float:
    """Mean negative log-likelihood in nats of the gold classes (n,) under logits (n, C) / temperature."""
    gold = np.asarray(labels, dtype=np.int64)
    return float(-log_softmax(logits, temperature=temperature)[np.arange(len(gold)), gold].mean())


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature in [0.05, 20] with the least NLL on these rows (Guo et al. 2017, §4.2).

    The NLL is convex in 1/temperature, so a bounded scalar search finds the minimum. The answer is never
    worse than 1.0 on the rows that it was fitted on; it is 1.0 for no rows, or where a gold class is masked
    (logit -inf).

    Args:
        logits: (n, C).
        labels: (n,) gold classes.
    """
    from scipy.optimize import minimize_scalar

    scores, gold = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if len(gold) == 0 or not np.isfinite(scores[np.arange(len(gold)), gold]).all():
        return 1.0
    low, high = TEMPERATURES
    found = minimize_scalar(
        lambda inverse: negative_log_likelihood(scores, gold, temperature=1.0 / inverse),
        bounds=(1.0 / high, 1.0 / low),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(1.0 / found.x)
    before = negative_log_likelihood(scores, gold)
    return temperature if negative_log_likelihood(scores, gold, temperature=temperature) < before else 1.0


def evaluate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    domain_ids: npt.ArrayLike,
    *,
    domains: Sequence[str],
    label_names: Sequence[str],
    domain_labels: Sequence[Sequence[int]],
    temperature: float = 1.0,
    domain_said: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """All metrics of one split, pooled and by domain, as plain numbers for results.json.

    Args:
        logits: (n, C).
        labels: (n,) gold classes.
        domain_ids: (n,) places in `domains`; -1 is unknown and counts only in the pooled figures.
        domains: N names.
        label_names: C names.
        domain_labels: for each domain the classes that it has; its macro-F1 and recall run over these.
        temperature: divides the logits in `brier`, `ece` and `nll`; `ece_raw` is that of the logits as they
            are.
        domain_said: (n,) the domain that each row was taken for.

    Returns:
        `n`, `accuracy`, `accuracy_se` (standard error), `macro_f1`, `macro_recall`, `brier`, `ece`,
        `ece_raw`, `nll`, `neutral_share` (predicted), `confusion` (gold × predicted); pooled also
        `domain_accuracy` and `domain_inference` (None without `domain_said`), `worst_domain` {name, macro_f1}
        and `per_domain` {name: the same}. Domains without rows are left out.

    Raises:
        ValueError: no rows.
    """
    scores = np.asarray(logits, dtype=np.float64)
    gold, ids = np.asarray(labels, dtype=np.int64), np.asarray(domain_ids, dtype=np.int64)
    if not len(gold):
        raise ValueError("no rows to evaluate; give a split with at least one row")
    every = range(len(label_names))
    pooled = _measure(scores, gold, every, label_names, temperature)
    per_domain = {
        name: _measure(
            scores[ids == place], gold[ids == place], domain_labels[place], label_names, temperature
        )
        for place, name in enumerate(domains)
        if (ids == place).any()
    }
    inferred = None if domain_said is None else domain_inference(domain_said, ids, domains)
    pooled["domain_accuracy"] = None if inferred is None else inferred["accuracy"]
    pooled["domain_inference"] = inferred
    worst = min(per_domain, key=lambda name: per_domain[name]["macro_f1"], default=None)
    pooled["worst_domain"] = (
        None if worst is None else {"name": worst, "macro_f1": per_domain[worst]["macro_f1"]}
    )
    pooled["per_domain"] = per_domain
    return pooled


def _measure(
    logits: Floats, labels: Ints, classes: Sequence[int], label_names: Sequence[str], temperature: float
) -> dict[str, Any]:
    log_probabilities = log_softmax(logits, temperature=temperature)
    probabilities = np.exp(log_probabilities)
    predicted = logits.argmax(axis=1)
    table = confusion_matrix(labels, predicted, len(label_names))
    accuracy = float((predicted == labels).mean())
    neutral = label_names.index("neutral") if "neutral" in label_names else None
    return {
        "n": len(labels),
        "accuracy": accuracy,
        "accuracy_se": accuracy_standard_error(accuracy, len(labels)),
        "macro_f1": macro_f1(table, classes),
        "macro_recall": macro_recall(table, classes),
        "brier": brier(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "ece_raw": expected_calibration_error(np.exp(log_softmax(logits)), labels),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "neutral_share": None if neutral is None else float((predicted == neutral).mean()),
        "confusion": table.tolist(),
    }
