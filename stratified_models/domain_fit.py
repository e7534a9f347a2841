"""The domain head fitted to the end: multinomial logistic regression on what the finished encoder gives.

In training the head follows features that move, in steps that suit the encoder, and is still on its way when
training ends. Its loss is convex in its own weights, so once the encoder stands, the best head for these rows
is found in a fraction of a second. It does not know the encoder, the strata, or what the head's weights are
used for.

M rows, D width, N domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stratified_models.domains import DomainHead
from stratified_models.errors import ModelError
from stratified_models.features import PooledRows

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["PENALTY", "HeadFit", "fit_domain_head_", "fit_head_"]

PENALTY = 0.03  # on standardised features; of 0.001 … 0.1 the likeliest for unseen rows of five domains
ROUNDS = 200
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class HeadFit:
    """How a fit went: its rows, and the mean cross-entropy on them, in nats, before and after."""

    rows: int
    before: float
    after: float


def fit_domain_head_(
    model: StratifiedForSequenceClassification,
    rows: PooledRows,
    *,
    penalty: float = PENALTY,
) -> HeadFit:
    """Fit the domain head of a trained model to training rows; nothing else of it changes.

    Args:
        model: changed in place.
        rows: of `features_of(model, …)`.
        penalty: λ of the ridge.

    Raises:
        ModelError: no row of a known domain, or features that are not finite.
    """
    return fit_head_(model.domain_head, rows.features, rows.domain_id, penalty=penalty)


def fit_head_(head: DomainHead, features: Tensor, domain_id: Tensor, *, penalty: float = PENALTY) -> HeadFit:
    """Minimise cross-entropy + λ/2 ‖W‖² over weights W of standardised `features` (M, D), and fold them in.

    Rows of unknown domain (−1) are left out; a domain without rows keeps weight 0 and becomes unlikely. Runs
    in double precision on the CPU, L-BFGS with strong Wolfe line searches: the same rows give the same head.
    """
    x, domain = features.detach().cpu().double(), domain_id.cpu()
    known = (domain >= 0) & (domain < head.weight.shape[0])
    x, domain = x[known], domain[known]
    if not len(x):
        raise ModelError("no row has a known domain, so the domain head cannot be fitted; give domain ids")
    if not bool(torch.isfinite(x).all()):
        raise ModelError("features hold values that are not finite; the model is broken, train it again")
    centre, spread = x.mean(0), x.std(0, correction=0).clamp(min=SMALLEST_SPREAD)
    standard = (x - centre) / spread
    before = _loss(head.gain * x @ head.weight.detach().cpu().double().T, head.bias, domain)
    weight, bias = _minimise(standard, domain, head.weight.shape[0], penalty)
    after = _loss(standard @ weight.T, bias, domain)
    raw = weight / spread  # of the features as they come
    with torch.no_grad():
        head.weight.copy_(raw / head.gain)
        head.bias.copy_(bias - raw @ centre)
    return HeadFit(len(x), before, after)


def _minimise(x: Tensor, domain: Tensor, domains: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights (N, D) and biases (N,) where the gradient vanishes."""
    weight = torch.zeros(domains, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(domains, dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=ROUNDS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, domain)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _loss(scores: Tensor, bias: Tensor, domain: Tensor) -> float:
    logits = scores + bias.detach().cpu().double()
    return float(torch.nn.functional.cross_entropy(logits, domain))
