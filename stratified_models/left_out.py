"""Which score finds a domain that training never saw: leave one out, fit the rest, ask for the one left out.

It works on what the blocks below the gate leave of the rows, so one pass over the texts serves every fold.
Nothing that is asked has seen the domain: energy is that of a domain head fitted anew without it, geometry
that of a density placed anew. The encoder alone was trained with all domains: the figures flatter a little,
all scores alike.

Domains that nothing tells apart, such as two files of the same sentences, are left out together: while one's
twin stays, it is not new.

M rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from stratified_models.diagnostics import alike_pairs, auroc, joined
from stratified_models.domain_fit import fit_head_
from stratified_models.domains import DomainHead
from stratified_models.features import PooledRows
from stratified_models.fold_density import fit_density
from stratified_models.unknown import FeatureScores

__all__ = ["choose_score", "fit_scores", "leave_one_out", "mean_of"]

FEWEST_ROWS, FEWEST_DOMAINS = 20, 3
MOST_ROWS, MOST_DOMAINS = 4000, 10  # that a choice looks at: seconds, however many there are

Scores = Callable[[PooledRows], dict[str, Tensor]]
LeftOut = dict[tuple[int, ...], dict[str, float]]


def choose_score(
    rows: PooledRows, *, ranks: Sequence[int] = (), seed: int = 0
) -> tuple[str, dict[str, float]]:
    """The score with the best mean AUROC over the domains left out, and that mean of every score.

    Of many rows or domains, 4,000 and ten drawn from `seed` decide. Energy, and no figures, with fewer than
    three domains of 20 rows. `ranks` as for `leave_one_out`.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rows.domain_id), generator=generator)[:MOST_ROWS].sort().values
    mean = mean_of(leave_one_out(rows.take(drawn), ranks=ranks, seed=seed, most=MOST_DOMAINS))
    return (max(mean, key=lambda name: mean[name]), mean) if mean else ("energy", {})


def mean_of(found: LeftOut) -> dict[str, float]:
    """Mean AUROC of each score that could be asked each time; empty where nothing was left out."""
    entries = list(found.values())
    names = [name for name in (entries[0] if entries else {}) if all(name in entry for entry in entries)]
    return {name: fmean(entry[name] for entry in entries) for name in names}


def leave_one_out(
    rows: PooledRows, *, ranks: Sequence[int] = (), seed: int = 0, most: int | None = None
) -> LeftOut:
    """AUROC of each score for each domain left out, by its id, alike ones by theirs together; of the others
    half is fitted on, half asked.

    At most `most` are left out, drawn from `seed`. Alike are those that a head fitted to one half takes for
    each other in the other half, unless fewer than three would remain. Empty with fewer than three domains of
    20 rows: with one domain left, no score has two to compare.

    Args:
        ranks: r_k of the gate; without them, or without `rows.coordinates`, geometry is not among the scores.
    """
    counts = torch.bincount(rows.domain_id[rows.domain_id >= 0])
    usable = [domain for domain, count in enumerate(counts.tolist()) if count >= FEWEST_ROWS]
    if len(usable) < FEWEST_DOMAINS:
        return {}
    rows = rows.take(torch.isin(rows.domain_id, torch.tensor(usable)))
    generator = torch.Generator().manual_seed(seed)
    fitted = _half_of_each(rows.domain_id, usable, generator)
    groups = _alike(rows, fitted, usable)
    asked = torch.randperm(len(groups), generator=generator)[:most].sort().values.tolist()
    found = {}
    for out in (groups[place] for place in asked):
        gone = torch.isin(rows.domain_id, torch.tensor(out))
        scores = fit_scores(rows.take(~gone & fitted), ranks=ranks, seed=seed)
        inside, outside = scores(rows.take(~gone & ~fitted)), scores(rows.take(gone))
        found[out] = {name: auroc(inside[name], outside[name]) for name in inside}
    return found


def _half_of_each(domain_id: Tensor, domains: list[int], generator: torch.Generator) -> Tensor:
    """True for half of the rows of each of `domains`, (M,)."""
    half = torch.zeros(len(domain_id), dtype=torch.bool)
    for domain in domains:
        places = (domain_id == domain).nonzero().flatten()
        half[places[torch.randperm(len(places), generator=generator)[::2]]] = True
    return half


def _alike(rows: PooledRows, fitted: Tensor, domains: list[int]) -> list[tuple[int, ...]]:
    """`domains` in groups that a head fitted to half of the rows tells apart; each by itself where these are
    too few to leave one out."""
    learned, asked = rows.take(fitted), rows.take(~fitted)
    head, present = _fit_head(learned)
    with torch.no_grad():
        said = head(asked.features, None).logits.argmax(-1)
    confusion = np.zeros((len(present), len(present)))
    np.add.at(confusion, (torch.searchsorted(present, asked.domain_id).numpy(), said.numpy()), 1)
    owner = joined(len(domains), alike_pairs(confusion))
    groups = [
        tuple(domains[n] for n, first in enumerate(owner) if first == own) for own in sorted(set(owner))
    ]
    return groups if len(groups) >= FEWEST_DOMAINS else [(domain,) for domain in domains]


def _fit_head(rows: PooledRows) -> tuple[DomainHead, Tensor]:
    """A head fitted to rows of known domains, and the ids of its outputs."""
    present, ids = torch.unique(rows.domain_id, return_inverse=True)
    width, domains = rows.features.shape[1], len(present)
    head = DomainHead(
        width=width, domains=domains, classes=1, allowed=[[0]] * domains, bias=False, dropout=0.0
    )
    head.initialise_()
    fit_head_(head, rows.features, ids)
    return head, present


def fit_scores(rows: PooledRows, *, ranks: Sequence[int] = (), seed: int = 0) -> Scores:
    """Fit every score to rows of known domains; the function that takes rows to scores by name, each (M,).

    Geometry is among them where `rows.coordinates` and `ranks` are given, and tokens enough.
    """
    head, present = _fit_head(rows)
    width = rows.features.shape[1]
    module = FeatureScores(width=width, domains=len(present), rows=min(1000, len(rows.domain_id)))
    module.initialise_()
    module.fit_(rows._replace(domain_id=torch.searchsorted(present, rows.domain_id)), seed=seed)
    density = None
    if ranks and rows.coordinates is not None:
        density = fit_density(rows.coordinates, ranks, seed=seed)

    def scores(asked: PooledRows) -> dict[str, Tensor]:
        with torch.no_grad():
            found = {"energy": head(asked.features, None).energy}
            if density is not None and asked.coordinates is not None:
                found["geometry"] = density(asked.coordinates)
            return {**found, **module(asked.features, asked.tokens)}

    return scores
