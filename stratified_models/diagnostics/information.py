"""Who is in which stratum, and what that tells about something else, in nats.

It does not know models: strata come as shares, one row per token or per text. M rows, K strata.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratified_models.errors import ModelError

__all__ = [
    "Baseline",
    "divergence",
    "effective_strata",
    "entropy",
    "mutual_information",
    "occupancy",
    "permutation_baseline",
    "token_effective_strata",
]

Array = NDArray[np.float64]


class Baseline(NamedTuple):
    """Mutual information against chance.

    Attributes:
        observed: of the labels as they are, in nats.
        mean, upper: mean and 95th percentile of the same labels shuffled; a finite sample never gives 0.
        p: share of shuffles at or above `observed`, with one added to both counts.
    """

    observed: float
    mean: float
    upper: float
    p: float


def _shares(strata: ArrayLike) -> Array:
    shares = np.asarray(strata, dtype=np.float64)
    if shares.ndim != 2 or 0 in shares.shape:
        raise ModelError(f"strata of shape {shares.shape} are no shares; give (≥ 1 rows, strata)")
    return shares


def occupancy(strata: ArrayLike) -> Array:
    """Mean share p̄ of each stratum over the rows of `strata` (M, K), as (K,)."""
    return np.asarray(_shares(strata).mean(axis=0))


def entropy(shares: ArrayLike) -> Any:
    """−Σ p log p over the last axis, in nats; 0 log 0 is 0."""
    p = np.asarray(shares, dtype=np.float64)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def effective_strata(strata: ArrayLike) -> float:
    """exp H(p̄): how many equally used strata would be as varied as these, from 1 to K."""
    return float(np.exp(entropy(occupancy(strata))))


def divergence(strata: ArrayLike, mean: ArrayLike) -> Array:
    """How far each row of `strata` (M, K) is from `mean` (K,): KL(p ‖ p̄) = Σ p log(p/p̄), in nats, ≥ 0, (M,).

    Strata that the mean says are never used are left out.
    """
    p, usual = _shares(strata), np.asarray(mean, dtype=np.float64)
    known = (p > 0) & (usual > 0)
    ratio = np.where(known, p, 1.0) / np.where(known, usual, 1.0)
    return np.asarray(np.maximum(0.0, np.sum(np.where(known, p, 0.0) * np.log(ratio), axis=-1)))


def token_effective_strata(strata: ArrayLike) -> float:
    """exp(mean H(p)): over how many strata a single row spreads, from 1 to K."""
    return float(np.exp(np.mean(entropy(_shares(strata)))))


def mutual_information(strata: ArrayLike, labels: ArrayLike) -> float:
    """I(stratum; label) = H(p̄) − Σ_y w_y H(p̄_y) in nats, of shares (M, K) and labels (M,).

    w_y is the share of rows with label y. Soft shares count as what they are: the stratum is drawn from them.
    A finite sample is biased upwards; compare with `permutation_baseline`.

    Raises:
        ModelError: the two have different numbers of rows.
    """
    shares = _shares(strata)
    return _information(shares, _indicator(shares, labels))


def _indicator(shares: Array, labels: ArrayLike) -> Array:
    names = np.asarray(labels)
    if names.shape != (len(shares),):
        raise ModelError(f"{names.shape} labels do not fit {len(shares)} rows of strata; give one a row")
    return np.asarray(np.unique(names)[:, None] == names, dtype=np.float64)  # (Y, M)


def _information(shares: Array, indicator: Array) -> float:
    sizes = indicator.sum(axis=1)
    within = entropy(indicator @ shares / sizes[:, None])  # (Y,)
    value = entropy(shares.mean(axis=0)) - (sizes / len(shares)) @ within
    return max(0.0, float(value))


def permutation_baseline(
    strata: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    rounds: int = 200,
    seed: int = 0,
) -> Baseline:
    """What `mutual_information` would be if labels had nothing to do with strata.

    Args:
        strata, labels: (M, K) and (M,).
        groups: (M,) ids of rows that share a label because they come from one text. Labels are then shuffled
            between groups, never inside: tokens of one text are no independent evidence.
        rounds: number of shuffles.
        seed: of the shuffles.
    """
    shares = _shares(strata)
    names = np.asarray(labels)
    indicator = _indicator(shares, names)
    rng = np.random.default_rng(seed)
    observed = _information(shares, indicator)
    if groups is None:
        drawn = np.array(
            [_information(shares, indicator[:, rng.permutation(len(shares))]) for _ in range(rounds)]
        )
    else:
        _, first, member = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        totals = np.zeros((len(first), shares.shape[1]))
        np.add.at(totals, member, shares)
        sizes, owner = np.bincount(member).astype(np.float64), indicator[:, first]
        drawn = np.array(
            [_grouped(totals, sizes, owner[:, rng.permutation(len(first))]) for _ in range(rounds)]
        )
    p = (1 + int(np.sum(drawn >= observed))) / (1 + rounds)
    return Baseline(observed, float(drawn.mean()), float(np.quantile(drawn, 0.95)), p)


def _grouped(totals: Array, sizes: Array, owner: Array) -> float:
    """The same information from sums per group: totals (G, K), sizes (G,), one-hot owner (Y, G)."""
    counts = owner @ sizes
    kept = counts > 0
    within = entropy((owner @ totals)[kept] / counts[kept, None])
    overall = totals.sum(axis=0) / sizes.sum()
    return max(0.0, float(entropy(overall) - (counts[kept] / sizes.sum()) @ within))
