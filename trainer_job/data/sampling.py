"""Sampling: how many rows each domain × label stratum gives, and which ones; pure functions with a seed.

It does not know texts. Sources are sorted by label more often than not, so rows are always drawn by a seeded
permutation inside a stratum, never taken from the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for each name, so that adding a domain leaves the draws of the others alone."""
    text = "\x1f".join(str(name) for name in names)
    return np.random.default_rng(
        [seed, int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")]
    )


def allocate(
    total: int, weights: Mapping[str, float], *, capacities: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Split `total` in proportion to `weights` by the largest remainder; ties go to the earlier name.

    With `capacities`, nobody gets more than theirs, and what they cannot take is spread over the others in
    the same way; the sum falls short of `total` only when all are full.
    """
    given = dict.fromkeys(weights, 0)
    left = total
    open_names = [
        name for name in weights if weights[name] > 0 and (capacities is None or capacities[name] > 0)
    ]
    while left > 0 and open_names:
        share = _largest_remainder(left, {name: weights[name] for name in open_names})
        for name, count in share.items():
            given[name] += count if capacities is None else min(count, capacities[name] - given[name])
        left = total - sum(given.values())
        open_names = [
            name for name in open_names if capacities is not None and given[name] < capacities[name]
        ]
    return given


def domain_weights(sizes: Mapping[str, int], *, shares: str, temperature: float) -> dict[str, float]:
    """Weights of the domains: 1 each for `even`, size^(1/temperature) for `size` (T5, §3.5.2)."""
    if shares == "even":
        return dict.fromkeys(sizes, 1.0)
    return {name: float(size) ** (1.0 / temperature) for name, size in sizes.items()}


def draw(
    labels: npt.NDArray[np.int8], quotas: Mapping[int, int], *, seed: int, name: str
) -> npt.NDArray[np.int64]:
    """Ascending positions of a stratified draw: `quotas[label]` rows of each label.

    Args:
        labels: (n,) label ids.
        quotas: label id → number of rows, at most those that exist.
        seed: the data seed.
        name: names the draw, such as domain and split; draws of other names are independent.
    """
    chosen = [
        generator(seed, name, label).permutation(np.flatnonzero(labels == label))[:count]
        for label, count in quotas.items()
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _largest_remainder(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    given = {name: int(value) for name, value in exact.items()}
    order = sorted(weights, key=lambda name: given[name] - exact[name])  # stable: the earlier name first
    for name in order[: total - sum(given.values())]:
        given[name] += 1
    return given
