"""How unlike the training rows a text is, by its pooled features: two scores beside energy and geometry.

- `mahalanobis`, relative Mahalanobis distance (Ren et al. 2021, arXiv:2106.09022): the smallest squared
  distance to a domain's mean under the covariance within domains, less the squared distance to the mean of
  all under the covariance of all, per dimension. What makes every text far from every domain cancels.
- `nearest`, distance on the unit sphere to the k-th nearest of the kept training rows (Sun et al. 2022,
  arXiv:2204.06507).

Both rise with strangeness. They are fitted once, after training, live in buffers, and so travel in the bundle
and come out of the same forward pass. It does not know what the features are, nor when a score is too high.

M training rows, B rows, D width, N domains, A kept rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.errors import ModelError
from stratified_models.features import features_of

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["NEIGHBOUR", "FeatureScores", "fit_unknown_"]

NEIGHBOUR = 10
SHRINKAGE = 0.05  # of a covariance towards its mean variance: with few rows the small eigenvalues are noise


def _whitener(centred: Tensor) -> Tensor:
    """W with WᵀW = Σ⁻¹ of the shrunk covariance of `centred` (M, D)."""
    covariance = centred.T @ centred / len(centred)
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(covariance.shape[0], dtype=covariance.dtype)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * variance * eye
    whitener: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(shrunk), eye, upper=False)
    return whitener


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

    def __init__(self, *, width: int, domains: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(domains, width))
        self.register_buffer("within", torch.empty(width, width))
        self.register_buffer("centre", torch.empty(width))
        self.register_buffer("overall", torch.empty(width, width))
        self.register_buffer("kept", torch.empty(rows, width))

    def initialise_(self) -> None:
        """Zero everything: an unfitted score is 0 or a constant for every text."""
        for buffer in (self.means, self.within, self.centre, self.overall, self.kept):
            init.zeros_(buffer)

    @torch.no_grad()
    def fit_(self, features: Tensor, domain_id: Tensor, *, seed: int = 0) -> None:
        """Fit to training rows: `features` (M, D) and their domains (M,), −1 where unknown.

        Rows of unknown domain count in the overall distribution alone. A domain without rows sits at the
        centre of all. Runs in double precision on the CPU.

        Raises:
            ModelError: fewer rows than are to be kept, none of a known domain, or values that are not finite.
        """
        x, domain = features.detach().cpu().double(), domain_id.cpu()
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
        self.within.copy_(_whitener(x[known] - means[domain[known]]))
        self.centre.copy_(centre)
        self.overall.copy_(_whitener(x - centre))
        self.kept.copy_(nn.functional.normalize(x[chosen], dim=-1))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Both scores of `features` (B, D), each (B,); `mahalanobis` per dimension.

        In double precision: two large distances that nearly cancel, and the root of a number near zero, would
        otherwise differ between engines by more than an export may.
        """
        x = features.detach().double()
        within, overall = self.within.double(), self.overall.double()
        own = ((x[:, None] - self.means.double()) @ within.T).square().sum(-1)  # (B, N)
        background = ((x - self.centre.double()) @ overall.T).square().sum(-1)
        alike = nn.functional.normalize(x, dim=-1) @ self.kept.double().T  # (B, A), cosines
        near = alike.topk(min(NEIGHBOUR, self.kept.shape[0]), dim=-1).values[:, -1]
        found = {
            "mahalanobis": (own.amin(-1) - background) / x.shape[-1],
            "nearest": (2 - 2 * near).clamp(min=0).sqrt(),
        }
        return {name: value.to(self.centre.dtype) for name, value in found.items()}


@torch.no_grad()
def fit_unknown_(
    model: StratifiedForSequenceClassification,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    score: str = "energy",
    rows: int = 1000,
    seed: int = 0,
) -> None:
    """Fit both scores of a trained model to training rows, and make `score` the one that it reports.

    Args:
        model: changed in place, its configuration too: what is saved from now on holds the scores.
        batches: each holds `input_ids`, `attention_mask` (B, T) and `domain_id` (B,).
        score: of `config.UNKNOWN_SCORES`.
        rows: most rows to keep for `nearest`.
        seed: of their choice.

    Raises:
        ModelError: too few rows, none of a known domain, or a score that this model cannot have.
    """
    found, domain_id = features_of(model, batches)
    kept = min(rows, len(found))
    module = FeatureScores(width=found.shape[1], domains=len(model.config.domains), rows=kept)
    module.fit_(found, domain_id, seed=seed)
    model.config.unknown_rows, model.config.unknown_score = kept, score
    model.config.check_unknown()
    model.unknown = module.to(model.device)
