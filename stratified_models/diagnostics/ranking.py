"""How well a score tells two groups apart, whatever its scale. It knows no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stratified_models.errors import ModelError

__all__ = ["auroc"]


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Probability that a score of `outside` exceeds one of `inside`, ties counting half (Mann–Whitney).

    Raises:
        ModelError: a group is empty, or a score is not finite.
    """
    low, high = np.ravel(np.asarray(inside, np.float64)), np.ravel(np.asarray(outside, np.float64))
    if not len(low) or not len(high):
        raise ModelError(f"AUROC of {len(low)} against {len(high)} scores; give at least one of each")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ModelError("AUROC of scores that are not finite; look at what gave them")
    low = np.sort(low)
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / (2 * len(low)))
