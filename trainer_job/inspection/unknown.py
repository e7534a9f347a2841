"""Which score finds a domain that training never saw: leave one out, fit the rest, ask for the one left out.

It works on pooled features alone, so one pass over the texts serves every fold. Energy is that of a linear
domain head fitted anew without the domain (the model's own head has seen it). The features come from a model
that was trained with all domains: the figures flatter a little, all scores alike. Geometry would need the
tokens of every fold and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from stratified_models import diagnostics

SCORES = ("energy", "mahalanobis", "nearest")
FEWEST = 20


def leave_one_out(
    features: np.ndarray, domains: np.ndarray, names: Sequence[str], *, seed: int = 0
) -> dict[str, Any] | None:
    """AUROC of each score for each domain left out, half of the others' rows fitted on and half asked.

    `features` (R, D), `domains` (R,) ids into `names`. None with fewer than three domains of 20 rows.
    """
    usable = [d for d in range(len(names)) if int((domains == d).sum()) >= FEWEST]
    if len(usable) < 3:
        return None
    rng = np.random.default_rng(seed)
    fitted = rng.random(len(features)) < 0.5
    left_out = {}
    for out in usable:
        rest = np.isin(domains, [d for d in usable if d != out])
        scores = fit_scores(features[rest & fitted], domains[rest & fitted], seed=seed)
        inside, outside = scores(features[rest & ~fitted]), scores(features[domains == out])
        left_out[names[out]] = {name: diagnostics.auroc(inside[name], outside[name]) for name in SCORES}
    mean = {name: fmean(entry[name] for entry in left_out.values()) for name in SCORES}
    return {"scores": list(SCORES), "left_out": left_out, "mean": mean}


def fit_scores(features: np.ndarray, domains: np.ndarray, *, seed: int = 0) -> Any:
    """Fit every score; returns the function that takes features (R, D) to scores by name, each (R,)."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from stratified_models.unknown import FeatureScores

    present = np.unique(domains)
    ids = np.searchsorted(present, domains)
    head = LogisticRegression(max_iter=500).fit(features, ids)
    kept = min(1000, len(features))
    module = FeatureScores(width=features.shape[1], domains=len(present), rows=kept)
    module.initialise_()
    module.fit_(torch.from_numpy(features), torch.from_numpy(ids), seed=seed)

    def scores(rows: np.ndarray) -> dict[str, np.ndarray]:
        logits = np.asarray(head.decision_function(rows), np.float64)
        logits = np.stack([-logits, logits], axis=1) / 2 if logits.ndim == 1 else logits
        top = logits.max(axis=1)
        energy = -(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
        with torch.no_grad():
            found = module(torch.from_numpy(np.asarray(rows, np.float32)))
        return {"energy": energy} | {name: value.numpy() for name, value in found.items()}

    return scores
