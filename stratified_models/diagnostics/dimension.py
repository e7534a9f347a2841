"""How many dimensions a cloud of points has, by two estimators that need not agree.

The participation ratio counts the directions over which variance spreads: global, linear. TwoNN reads the
ratio of the distances to the two nearest neighbours: local, blind to curvature and to larger scales.
M points, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratified_models.errors import ModelError

__all__ = ["Interval", "bootstrap", "nearest_distances", "participation_ratio", "two_nn", "two_nn_of_ratios"]

Array = NDArray[np.float64]
BLOCK = 4_000_000  # entries of a distance block: 32 MB


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def _points(points: ArrayLike, least: int) -> Array:
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or len(x) < least:
        raise ModelError(f"points of shape {x.shape} are too few; give (≥ {least}, coordinates)")
    return x


def participation_ratio(points: ArrayLike) -> float:
    """(Σλ)² / Σλ² of the covariance's eigenvalues λ: between 1 and D; 0 where all points coincide.

    Raises:
        ModelError: fewer than 2 points.
    """
    x = _points(points, 2)
    x = x - x.mean(axis=0)
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T  # the same non-zero eigenvalues
    total, square = float(np.trace(gram)), float(np.sum(gram * gram))
    return total**2 / square if square > 0 else 0.0


def nearest_distances(points: ArrayLike, count: int, *, queries: ArrayLike | None = None) -> Array:
    """Distances to the `count` nearest points, rising, (Q, count), for each query; brute force, in blocks.

    Without `queries` each point asks about the others, itself left out.

    Raises:
        ModelError: fewer points than asked for.
    """
    own = queries is None
    x = _points(points, count + own)
    q = x if queries is None else np.asarray(queries, dtype=np.float64)
    centre = x.mean(axis=0)  # smaller numbers lose fewer digits in |a|² + |b|² − 2ab
    x, q = x - centre, q - centre
    norms, step = np.sum(x * x, axis=1), max(1, BLOCK // len(x))
    found = np.empty((len(q), count))
    for at in range(0, len(q), step):
        part = q[at : at + step]
        square = np.sum(part * part, axis=1)[:, None] + norms - 2 * part @ x.T
        if own:
            square[np.arange(len(part)), np.arange(at, at + len(part))] = np.inf
        nearest = np.partition(square, count - 1, axis=1)[:, :count]
        found[at : at + step] = np.sqrt(np.maximum(np.sort(nearest, axis=1), 0.0))
    return found


def two_nn(points: ArrayLike, *, share: float = 0.9) -> float:
    """Intrinsic dimension by the two nearest neighbours (Facco et al., Sci. Rep. 7, 2017).

    μ = r₂/r₁ follows 1 − μ^(−d) on a d-dimensional patch of constant density; d is the slope through the
    origin of −log(1 − F(μ)) on log μ over the lowest `share` of the ratios. Points that coincide count once.

    Raises:
        ModelError: fewer than 10 distinct points, or a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ModelError(f"share {share} of the ratios is outside (0, 1]; the paper takes 0.9")
    x = np.unique(np.asarray(points, dtype=np.float64), axis=0)
    pairs = nearest_distances(_points(x, 10), 2)
    return two_nn_of_ratios(pairs[:, 1] / np.maximum(pairs[:, 0], 1e-300), share=share)


def two_nn_of_ratios(ratios: ArrayLike, *, share: float = 0.9) -> float:
    """The fit alone, of ratios μ ≥ 1 (M,)."""
    mu = np.sort(np.asarray(ratios, dtype=np.float64))
    kept = max(1, min(len(mu) - 1, int(len(mu) * share)))
    x = np.log(mu[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / len(mu))
    return float(x @ y / max(float(x @ x), 1e-300))


def bootstrap(
    estimate: Callable[[Array], float], rows: ArrayLike, *, rounds: int = 200, seed: int = 0
) -> Interval:
    """Normal bootstrap interval, ± 1.96 s.e., of `estimate` over `rows` (M, …) drawn with replacement.

    Not percentiles: rows drawn twice lower a participation ratio, so its percentiles lie below the estimate.

    For TwoNN give the ratios and `two_nn_of_ratios`: points drawn twice would be each other's neighbour at
    distance 0.
    """
    x = np.asarray(rows, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = [estimate(x[rng.integers(len(x), size=len(x))]) for _ in range(rounds)]
    value, reach = float(estimate(x)), 1.96 * float(np.std(drawn, ddof=1))
    return Interval(value, value - reach, value + reach)
