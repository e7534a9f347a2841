"""Which domains a model tells apart, and which it cannot.

It knows arrays, no model. R rows, N domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["domain_inference"]


def domain_inference(
    said: npt.ArrayLike, domains: npt.ArrayLike, names: Sequence[str]
) -> dict[str, Any] | None:
    """What was said, (R,), of rows of known domain, (R,), −1 where unknown; None without any.

    Returns:
        `n`; `accuracy`; `confusion` (true × said); `alike`, the pairs of which a fifth or more is taken for
        the other in both directions; `accuracy_alike`, with those counted as one domain, and the same for
        each domain that has rows, `by_domain`.
    """
    from stratified_models.diagnostics import alike_pairs, joined

    truth, answers = np.asarray(domains, np.int64), np.asarray(said, np.int64)
    known = truth >= 0
    if not known.any():
        return None
    truth, answers = truth[known], answers[known]
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (truth, answers), 1)
    pairs = alike_pairs(counts)
    merged = np.array(joined(len(names), pairs))
    right = merged[truth] == merged[answers]
    return {
        "n": int(known.sum()),
        "accuracy": float((truth == answers).mean()),
        "confusion": counts.tolist(),
        "alike": [[names[a], names[b]] for a, b in pairs],
        "accuracy_alike": float(right.mean()),
        "by_domain": {
            name: float(right[truth == place].mean())
            for place, name in enumerate(names)
            if (truth == place).any()
        },
    }
