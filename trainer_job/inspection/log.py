"""What an evaluation during training says of the strata, as figures for the log.

It knows arrays, no model and no Trainer. Row means stand for tokens here; `inspect` reads the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["strata_log"]

ROUNDS = 50


def strata_log(rows: Mapping[str, np.ndarray], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Each stratum's share, their effective number, and what they tell of domain and label, in nats, beside
    the mean of shuffled texts; nothing without strata.

    Args:
        rows: `occupancy` (R, K), `domain_id` and `labels` (R,).
        rounds: shuffles.
    """
    if "occupancy" not in rows:
        return {}
    from stratified_models import diagnostics

    strata = np.asarray(rows["occupancy"], dtype=np.float64)
    figures = {f"strata/occupancy_{k}": float(share) for k, share in enumerate(strata.mean(axis=0))}
    figures["strata/effective"] = diagnostics.effective_strata(strata)
    for name, labels in (("domain", rows["domain_id"]), ("label", rows["labels"])):
        found = diagnostics.permutation_baseline(strata, labels, rounds=rounds)
        figures[f"strata/information_{name}"] = found.observed
        figures[f"strata/information_{name}_shuffled"] = found.mean
    return figures
