"""Which domains the domain head tells apart, and which it cannot.

It knows arrays, no model. R texts, N domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["domain_figures"]

ALIKE = (
    0.2  # share of a domain's texts taken for another, in both directions, that makes the two look like one
)


def domain_figures(logits: np.ndarray, domains: np.ndarray, names: Sequence[str]) -> dict[str, Any] | None:
    """Confusion matrix of the domain head's logits (R, N) on texts of known domain; None without any.

    `alike` names the pairs of which a fifth or more is taken for the other in both directions;
    `accuracy_alike` counts those as one domain.
    """
    known = domains >= 0
    if not known.any():
        return None
    true, said = domains[known], logits[known].argmax(axis=1)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (true, said), 1)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    pairs = [
        (a, b)
        for a in range(len(names))
        for b in range(a + 1, len(names))
        if min(shares[a, b], shares[b, a]) >= ALIKE
    ]
    owner = list(range(len(names)))
    for a, b in pairs:
        kept, gone = sorted((owner[a], owner[b]))
        owner = [kept if place == gone else place for place in owner]
    merged = np.array(owner)
    return {
        "texts": int(known.sum()),
        "confusion": counts.tolist(),
        "accuracy": float((true == said).mean()),
        "alike": [[names[a], names[b]] for a, b in pairs],
        "accuracy_alike": float((merged[true] == merged[said]).mean()),
    }
