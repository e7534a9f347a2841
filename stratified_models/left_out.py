"""Which score finds a domain that training never saw: leave one out, fit the rest, ask for the one left out.

It works on pooled features alone, so one pass over the texts serves every fold. Energy is that of a domain
head fitted anew without the domain (the model's own has seen it). The features come from a model that was
trained with all domains: the figures flatter a little, all scores alike. Geometry would need the tokens of
every fold, and a gate placed anew, and is left out.

M rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from stratified_models.diagnostics import auroc
from stratified_models.domain_fit import fit_head_
from stratified_models.domains import DomainHead
from stratified_models.features import PooledRows
from stratified_models.unknown import FeatureScores

__all__ = ["LEFT_OUT_SCORES", "choose_score", "fit_scores", "leave_one_out"]

LEFT_OUT_SCORES = ("energy", "mahalanobis", "nearest")
FEWEST_ROWS, FEWEST_DOMAINS = 20, 3
MOST_ROWS, MOST_DOMAINS = 4000, 10  # that a choice looks at: seconds, however many there are

Scores = Callable[[PooledRows], dict[str, Tensor]]


def choose_score(rows: PooledRows, *, seed: int = 0) -> tuple[str, dict[str, float]]:
    """The score with the best mean AUROC over the domains left out, and that mean of every score.

    Of many rows or domains, 4,000 and ten drawn from `seed` decide. Energy, and no figures, with fewer than
    three domains of 20 rows.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rows.domain_id), generator=generator)[:MOST_ROWS].sort().values
    left_out = leave_one_out(rows.take(drawn), seed=seed, most=MOST_DOMAINS)
    if not left_out:
        return "energy", {}
    mean = {name: fmean(found[name] for found in left_out.values()) for name in LEFT_OUT_SCORES}
    return max(mean, key=lambda name: mean[name]), mean


def leave_one_out(rows: PooledRows, *, seed: int = 0, most: int | None = None) -> dict[int, dict[str, float]]:
    """AUROC of each score for each domain left out, by its id; of the others half is fitted on, half asked.

    At most `most` domains are left out, drawn from `seed`. Empty with fewer than three domains of 20 rows:
    with one domain left, no score has two to compare.
    """
    counts = torch.bincount(rows.domain_id[rows.domain_id >= 0])
    usable = [domain for domain, count in enumerate(counts.tolist()) if count >= FEWEST_ROWS]
    if len(usable) < FEWEST_DOMAINS:
        return {}
    generator = torch.Generator().manual_seed(seed)
    fitted = _half_of_each(rows.domain_id, usable, generator)
    asked = torch.randperm(len(usable), generator=generator)[:most].sort().values.tolist()
    found = {}
    for out in (usable[place] for place in asked):
        rest = torch.isin(rows.domain_id, torch.tensor([domain for domain in usable if domain != out]))
        scores = fit_scores(rows.take(rest & fitted), seed=seed)
        inside, outside = scores(rows.take(rest & ~fitted)), scores(rows.take(rows.domain_id == out))
        found[out] = {name: auroc(inside[name], outside[name]) for name in LEFT_OUT_SCORES}
    return found


def _half_of_each(domain_id: Tensor, domains: list[int], generator: torch.Generator) -> Tensor:
    """True for half of the rows of each of `domains`, (M,)."""
    half = torch.zeros(len(domain_id), dtype=torch.bool)
    for domain in domains:
        places = (domain_id == domain).nonzero().flatten()
        half[places[torch.randperm(len(places), generator=generator)[::2]]] = True
    return half


def fit_scores(rows: PooledRows, *, seed: int = 0) -> Scores:
    """Fit every score to rows of known domains; the function that takes rows to scores by name, each (M,)."""
    present, ids = torch.unique(rows.domain_id, return_inverse=True)
    rows = rows._replace(domain_id=ids)
    domains, width = len(present), rows.features.shape[1]
    head = DomainHead(
        width=width, domains=domains, classes=1, allowed=[[0]] * domains, bias=False, dropout=0.0
    )
    head.initialise_()
    fit_head_(head, rows.features, ids)
    module = FeatureScores(width=width, domains=domains, rows=min(1000, len(ids)))
    module.initialise_()
    module.fit_(rows, seed=seed)

    def scores(asked: PooledRows) -> dict[str, Tensor]:
        with torch.no_grad():
            found: dict[str, Tensor] = module(asked.features, asked.tokens)
            return {"energy": head(asked.features, None).energy, **found}

    return scores
