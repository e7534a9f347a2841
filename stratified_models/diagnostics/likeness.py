"""Which groups cannot be told apart, from what was said of their rows. It knows no model. N groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["ALIKE", "alike_pairs", "joined"]

ALIKE = 0.2  # share of a group's rows taken for the other, in both directions, that makes two look like one


def alike_pairs(confusion: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of groups of which a fifth or more is taken for the other in both directions.

    Args:
        confusion: rows of each group that were taken for each, true × said, (N, N).
    """
    counts = np.asarray(confusion, np.float64)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    both = np.triu(np.minimum(shares, shares.T), k=1)
    return [(int(a), int(b)) for a, b in np.argwhere(both >= ALIKE)]


def joined(groups: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The first of those that each of `groups` is joined with by `pairs`, itself where there is none."""
    owner = list(range(groups))
    for a, b in pairs:
        kept, gone = sorted((owner[a], owner[b]))
        owner = [kept if place == gone else place for place in owner]
    return owner
