"""Significance: is one model better than another on the same rows, or only luckier? Pure numpy and scipy.

It does not know which models are compared. Legend: `S` seeds, `n` rows, `R` resamples, `K` patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Metric = Literal["accuracy", "macro_f1"]

CHUNK = 1_000_000  # resampled counts held at a time
ROUNDING = 1e-12  # a difference below is a tie


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: Metric,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Percentile bootstrap of metric(a) - metric(b), over rows and, where there are several, over seeds.

    Both levels are resampled with replacement; a row drawn for `a` is drawn for `b`, and so is a seed if
    both have as many: run i of both is then of one seed (else each draws its own). Macro-F1 runs over the
    classes that occur in `labels`. The p-value is two-sided, 2·min(P(delta* ≤ 0), P(delta* ≥ 0)) with one
    added to both counts (Davison & Hinkley 1997, §4.2), so it is never 0.

    Rows on which all runs say the same are exchangeable, so the resampling draws how often each such pattern
    comes (a multinomial) instead of single rows: the same distribution at a fraction of the work.

    Args:
        a: predicted classes (n,) or (S, n).
        b: predicted classes (n,) or (S', n) of the same rows.
        labels: gold classes (n,).
        metric: `accuracy` or `macro_f1`.
        samples: R.
        seed: of the resampling.

    Returns:
        `delta` (on the rows as they are, mean over seeds), `ci95` [low, high], `p`, `samples`.

    Raises:
        ValueError: the shapes do not fit, or there are no rows.
    """
    gold = np.asarray(labels, dtype=np.int64)
    first, second = _runs(a, gold), _runs(b, gold)
    rng = np.random.default_rng(seed)
    patterns, counts = np.unique(np.vstack([gold, first, second]), axis=1, return_counts=True)
    gold, first, second = patterns[0], patterns[1 : 1 + len(first)], patterns[1 + len(first) :]
    once = counts[None, :].astype(np.float64)
    delta = float(_scores(first, gold, once, metric).mean() - _scores(second, gold, once, metric).mean())
    parts = [
        _resampled(first, second, gold, weights, metric, rng) for weights in _weights(counts, samples, rng)
    ]
    deltas = np.concatenate(parts)
    deltas[np.abs(deltas) < ROUNDING] = 0.0
    low, high = np.quantile(deltas, [0.025, 0.975])
    tail = min(int((deltas <= 0).sum()), int((deltas >= 0).sum()))
    p = min(1.0, 2.0 * (tail + 1) / (samples + 1))
    return {"delta": delta, "ci95": [float(low), float(high)], "p": p, "samples": samples}


def mcnemar(a: npt.ArrayLike, b: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, Any]:
    """McNemar's test on the rows of which only one model is right.

    Seeds are pooled: `only_a` and `only_b` are means over pairs of seeds, rounded, so that a row counts once
    however many seeds there are; adding them up would take each seed for a new set of rows.

    Args:
        a: predicted classes (n,) or (S, n).
        b: predicted classes (n,) or (S, n) of the same rows, run i with the seed of run i of `a`.
        labels: gold classes (n,).

    Returns:
        `only_a` and `only_b` (rows that only that one gets right), `p_exact` (two-sided binomial,
        conservative) and `p`, its mid-p form, which holds its level better (Fagerland et al. 2013).

    Raises:
        ValueError: the shapes do not fit, there are no rows, or not as many runs of one as of the other.
    """
    from scipy.stats import binom

    gold = np.asarray(labels, dtype=np.int64)
    right_a, right_b = _runs(a, gold) == gold, _runs(b, gold) == gold  # (S, n)
    pairs = len(right_a)
    if pairs != len(right_b):
        raise ValueError(f"{pairs} runs of one and {len(right_b)} of the other; give those of common seeds")
    only_a, only_b = round((right_a & ~right_b).sum() / pairs), round((right_b & ~right_a).sum() / pairs)
    few, total = min(only_a, only_b), only_a + only_b
    exact = min(1.0, 2.0 * float(binom.cdf(few, total, 0.5)))
    mid = min(1.0, 2.0 * float(binom.cdf(few, total, 0.5)) - float(binom.pmf(few, total, 0.5)))
    return {"only_a": only_a, "only_b": only_b, "p": 1.0 if only_a == only_b else mid, "p_exact": exact}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given, which bound the family-wise
    error."""
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def minimum_detectable_difference(
    discordant: float, n: int, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest difference in accuracy that `n` paired rows show with this power, as a fraction.

    (z₁₋α/₂ + z_power)·√(discordant/n): the paired difference has variance ≤ discordant/n (Connor 1987, small
    differences).

    Args:
        discordant: share of rows of which only one model is right.
        n: rows.
        alpha: two-sided level.
        power: chance to find a difference of that size.
    """
    from scipy.stats import norm

    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * np.sqrt(discordant / n))


def _runs(predicted: npt.ArrayLike, gold: Ints) -> Ints:
    runs = np.atleast_2d(np.asarray(predicted, dtype=np.int64))  # (S, n)
    if runs.ndim != 2 or runs.shape[1] != len(gold) or not len(gold):
        msg = f"predictions {runs.shape} do not fit labels {gold.shape}; give (n,) or (seeds, n), n ≥ 1"
        raise ValueError(msg)
    return runs


def _weights(counts: Ints, samples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each of K patterns is drawn among Σ counts rows, (chunk, K) at a time."""
    rows, chunk = int(counts.sum()), max(1, CHUNK // len(counts))
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        yield rng.multinomial(rows, counts / rows, size=size).astype(np.float64)


def _resampled(
    a: Ints, b: Ints, gold: Ints, weights: Floats, metric: Metric, rng: np.random.Generator
) -> Floats:
    scores_a, scores_b = _scores(a, gold, weights, metric), _scores(b, gold, weights, metric)  # (S, chunk)
    pick_a = rng.integers(0, len(a), size=scores_a.shape)
    pick_b = pick_a if len(a) == len(b) else rng.integers(0, len(b), size=scores_b.shape)
    mean_a = np.take_along_axis(scores_a, pick_a, axis=0).mean(axis=0)
    mean_b = np.take_along_axis(scores_b, pick_b, axis=0).mean(axis=0)
    result: Floats = mean_a - mean_b
    return result


def _scores(runs: Ints, gold: Ints, weights: Floats, metric: Metric) -> Floats:
    """The metric of each run under each weighting of the rows, (S, R)."""
    if metric == "accuracy":
        result: Floats = (runs == gold).astype(np.float64) @ weights.T / weights.sum(axis=1)
        return result
    classes = np.unique(gold)
    scores = np.zeros((len(runs), len(weights)))
    for label in classes:
        is_gold, is_said = gold == label, runs == label
        hits = (is_said & is_gold).astype(np.float64) @ weights.T  # (S, R)
        size = is_said.astype(np.float64) @ weights.T + is_gold.astype(np.float64) @ weights.T
        scores += np.divide(2.0 * hits, size, out=np.zeros_like(hits), where=size > 0)
    mean: Floats = scores / len(classes)
    return mean
