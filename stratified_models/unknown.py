"""How unlike the training rows a text is, by its pooled features: two scores beside energy and geometry.

- `mahalanobis`, relative Mahalanobis distance (Ren et al. 2021, arXiv:2106.09022): the smallest squared
  distance to a domain's mean under the precision within domains, less the squared distance to the mean of
  all under the precision of all. What makes every text far from every domain cancels. Either precision is
  the mean of two, of each feature by itself and of features together: one finds critics, the other tweets.
- `nearest`, distance on the unit sphere to the k-th nearest of the kept training rows (Sun et al. 2022,
  arXiv:2204.06507).

A mean of few tokens scatters far and one of many lies near the centre, so either distance alone says how
short a text is before it says how strange. Each is therefore given as spreads above what training rows of
that length have (`by_length`): 0 is a usual text, whatever its length.

Both rise with strangeness. They are fitted once, after training, live in buffers, and so travel in the bundle
and come out of the same forward pass. It does not know what the features are, nor when a score is too high.

M training rows, B rows, D width, N domains, A kept rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.by_length import COLUMNS, basis, fit_lengths
from stratified_models.errors import ModelError
from stratified_models.features import PooledRows

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["NEIGHBOUR", "FeatureScores", "fit_unknown_"]

FITTED = ("mahalanobis", "nearest")
NEIGHBOUR = 10
SHRINKAGE = 0.05  # of the variances towards their mean: a constant feature must not divide by 0
DIAGONAL = 0.5  # of the covariance, which more features than rows would leave singular
TOGETHER = 2 / 3  # of the precision: what features say together; the rest is what each says by itself


def _variances(centred: Tensor) -> Tensor:
    """Of `centred` (M, D) by feature, (D,), shrunk."""
    variance = centred.square().mean(0)
    return (1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean().clamp(min=1e-12)


def _whitening(centred: Tensor) -> Tensor:
    """The matrix (D, D) whose product with rows has their squared distances under the precision of `centred`
    (M, D) as squared lengths."""
    variance = _variances(centred)
    covariance = (1 - DIAGONAL) * centred.T @ centred / len(centred) + DIAGONAL * variance.diag()
    precision = (1 - TOGETHER) * variance.reciprocal().diag() + TOGETHER * torch.linalg.inv(covariance)
    found: Tensor = torch.linalg.cholesky((precision + precision.T) / 2)
    return found


class FeatureScores(nn.Module):
    """Buffers of both scores.

    Args:
        width: D.
        domains: N.
        rows: A, training rows kept for `nearest`.
    """

    means: Tensor
    within: Tensor
    centre: Tensor
    overall: Tensor
    kept: Tensor
    usual: Tensor
    spread: Tensor
    least: Tensor
    reach: Tensor

    def __init__(self, *, width: int, domains: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(domains, width))
        self.register_buffer("within", torch.empty(width, width))  # whitens, as `overall` does
        self.register_buffer("centre", torch.empty(width))
        self.register_buffer("overall", torch.empty(width, width))
        self.register_buffer("kept", torch.empty(rows, width))
        # Of each fitted score what it usually is by length, its spread there, and the least spread.
        self.register_buffer("usual", torch.empty(len(FITTED), COLUMNS))
        self.register_buffer("spread", torch.empty(len(FITTED), COLUMNS))
        self.register_buffer("least", torch.empty(len(FITTED)))
        self.register_buffer("reach", torch.empty(2))  # fewest and most tokens of the rows

    def initialise_(self) -> None:
        """An unfitted score is a constant for every text."""
        for buffer in (self.means, self.centre, self.kept, self.usual, self.spread):
            init.zeros_(buffer)
        for buffer in (self.within, self.overall, self.least, self.reach):
            init.ones_(buffer)

    @torch.no_grad()
    def fit_(self, rows: PooledRows, *, seed: int = 0) -> None:
        """Fit to training rows.

        Rows of unknown domain count in the overall distribution alone. A domain without rows sits at the
        centre of all. Runs in double precision on the CPU.

        Raises:
            ModelError: fewer rows than are to be kept, none of a known domain, or values that are not finite.
        """
        x, domain = rows.features.detach().cpu().double(), rows.domain_id.cpu()
        if len(x) < max(len(self.kept), NEIGHBOUR):
            raise ModelError(f"{len(x)} rows are too few to keep {len(self.kept)}; give more, or keep fewer")
        if not bool(torch.isfinite(x).all()):
            raise ModelError("features hold values that are not finite; the model is broken, train it again")
        names = [k for k in range(len(self.means)) if bool((domain == k).any())]
        if not names:
            raise ModelError("no row has a known domain, so no domain has a mean; give domain ids")
        centre = x.mean(0)
        means = centre.repeat(len(self.means), 1)
        for k in names:
            means[k] = x[domain == k].mean(0)
        known = domain >= 0
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(x), generator=generator)[: len(self.kept)]
        self.means.copy_(means)
        self.within.copy_(_whitening(x[known] - means[domain[known]]))
        self.centre.copy_(centre)
        self.overall.copy_(_whitening(x - centre))
        self.kept.copy_(nn.functional.normalize(x[chosen], dim=-1))
        beside = torch.zeros(len(x), dtype=torch.bool)
        beside[chosen] = True
        self._fit_lengths_(x, rows, beside)

    def _fit_lengths_(self, x: Tensor, rows: PooledRows, beside: Tensor) -> None:
        """Fit what rows of a length have; those that are `beside` (M,) are kept, each its own neighbour."""
        counts, windows = rows.tokens.cpu().double().clamp(min=1), rows.windows
        brief: list[tuple[Tensor, Tensor] | None] = [None] * len(FITTED)
        reach = counts
        if windows is not None:
            there = windows.tokens > 0
            tokens = windows.tokens[there].cpu().double()
            distances = self._distances(windows.features[there].cpu().double())
            brief, reach = [(tokens, found) for found in distances], torch.cat([counts, tokens])
        self.reach.copy_(torch.stack([reach.min(), reach.max()]))
        for place, found in enumerate(self._distances(x, beside)):
            fit = fit_lengths(counts, found, brief[place])
            self.usual[place], self.spread[place], self.least[place] = fit

    def forward(self, features: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Both scores (B,) of `features` (B, D), means over `tokens` (B,) content tokens: standard deviations
        above what training rows of that length have.

        In double precision: two large distances that nearly cancel, and the root of a number near zero, would
        otherwise differ between engines by more than an export may.
        """
        counts = torch.minimum(torch.maximum(tokens.double(), self.reach[0].double()), self.reach[1].double())
        at, scores = basis(counts), {}
        for place, found in enumerate(self._distances(features.detach().double())):
            usual, spread = at @ self.usual[place].double(), at @ self.spread[place].double()
            off = (found - usual) / torch.maximum(spread, self.least[place].double())
            scores[FITTED[place]] = off.to(self.centre.dtype)
        return scores

    def _distances(self, x: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of `x` (B, D): the relative squared distance per feature, and the distance to the k-th neighbour,
        to the one after it for the rows that are `beside` (B,) themselves; each (B,)."""
        within, overall = self.within.double(), self.overall.double()
        own = ((x @ within)[:, None] - self.means.double() @ within).square().sum(-1)  # (B, N)
        background = ((x - self.centre.double()) @ overall).square().sum(-1)
        alike = nn.functional.normalize(x, dim=-1) @ self.kept.double().T  # (B, A), cosines
        kept = self.kept.shape[0]
        near = alike.topk(min(NEIGHBOUR, kept), dim=-1).values[:, -1]
        if beside is not None:
            near = torch.where(beside, alike.topk(min(NEIGHBOUR + 1, kept), dim=-1).values[:, -1], near)
        return (own.amin(-1) - background) / x.shape[-1], (2 - 2 * near).clamp(min=0).sqrt()


@torch.no_grad()
def fit_unknown_(
    model: StratifiedForSequenceClassification,
    rows: PooledRows,
    *,
    score: str = "energy",
    keep: int = 1000,
    seed: int = 0,
) -> None:
    """Fit both scores of a trained model to training rows, and make `score` the one that it reports.

    Args:
        model: changed in place, its configuration too: what is saved from now on holds the scores.
        rows: of `features_of(model, …)`.
        score: of `config.UNKNOWN_SCORES`.
        keep: most rows to keep for `nearest`.
        seed: of their choice.

    Raises:
        ModelError: too few rows, none of a known domain, or a score that this model cannot have.
    """
    kept = min(keep, len(rows.features))
    module = FeatureScores(width=rows.features.shape[1], domains=len(model.config.domains), rows=kept)
    module.fit_(rows, seed=seed)
    model.config.unknown_rows, model.config.unknown_score = kept, score
    model.config.check_unknown()
    model.unknown = module.to(model.device)
