"""The domain head fitted to the end: multinomial logistic regression on what the finished encoder gives.

In training the head follows features that move, in steps that suit the encoder, and is still on its way when
training ends. Its loss is convex in its own weights, so once the encoder stands, the best head for these rows
is found in a fraction of a second. It does not know the encoder, the strata, or what the head's weights are
used for.

M rows, L of them drawn, D width, N domains.
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

__all__ = [
    "PENALTY",
    "ROWS",
    "HeadFit",
    "fit_domain_head_",
    "fit_head_",
    "fit_linear",
    "known_rows",
    "mean_loss",
    "shared_weights",
]

PENALTY = 0.03  # on standardised features; of 0.001 … 0.1 the likeliest for unseen rows of five domains
ROWS = 4000  # of which that was seen; of 20,000 .01 was better than .003, so it falls with their root
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
    penalty: float | None = None,
    weights: Tensor | None = None,
) -> HeadFit:
    """Fit the domain head of a trained model to training rows; nothing else of it changes.

    Args:
        model: changed in place.
        rows: of `features_of(model, …)`.
        penalty: λ of the ridge; None is `PENALTY`, and less with more rows than `ROWS`.
        weights: how much each row counts, (M,), as by `shared_weights`; None is one each.

    Raises:
        ModelError: no row of a known domain, or features that are not finite.
    """
    return fit_head_(model.domain_head, rows.features, rows.domain_id, penalty=penalty, weights=weights)


def shared_weights(domain_id: Tensor, drawn: Tensor) -> Tensor:
    """Weights of rows by which each domain counts as much as it does among those that were drawn.

    More rows of a domain then say more of what it is like, and not that it is more frequent.

    Args:
        domain_id: the rows' domains, (M,), −1 where unknown: they count nothing.
        drawn: the domains of the rows whose shares hold, (L,).

    Returns:
        (M,); they sum to the number of drawn rows of known domain, where each has a row.
    """
    size = int(max(domain_id.max(), drawn.max())) + 1
    counts = torch.bincount(domain_id[domain_id >= 0], minlength=size)
    shares = torch.bincount(drawn[drawn >= 0], minlength=size) / counts.clamp(min=1).double()
    return torch.where(domain_id >= 0, shares[domain_id.clamp(min=0)], 0.0)


def mean_loss(scores: Tensor, domain: Tensor, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy, in nats, of scores (M, N) and domains (M,), each row by its weight (M,)."""
    if weights is None:
        return torch.nn.functional.cross_entropy(scores, domain)
    losses = torch.nn.functional.cross_entropy(scores, domain, reduction="none")
    return (weights * losses).sum() / weights.sum()


def fit_head_(
    head: DomainHead,
    features: Tensor,
    domain_id: Tensor,
    *,
    penalty: float | None = None,
    weights: Tensor | None = None,
) -> HeadFit:
    """Minimise cross-entropy + λ/2 ‖W‖² over weights W of standardised `features` (M, D), and fold them in.

    Rows of unknown domain (−1) are left out; a domain without rows keeps weight 0 and becomes unlikely. Runs
    in double precision on the CPU, L-BFGS with strong Wolfe line searches: the same rows give the same head.
    """
    x, domain, weights = known_rows(features, domain_id, weights, domains=len(head.weight))
    old = head.bias.detach().cpu().double()
    before = mean_loss(head.gain * x @ head.weight.detach().cpu().double().T + old, domain, weights)
    weight, bias = fit_linear(x, domain, domains=len(head.weight), penalty=penalty, weights=weights)
    with torch.no_grad():
        head.weight.copy_(weight / head.gain)
        head.bias.copy_(bias)
    return HeadFit(len(x), float(before), float(mean_loss(x @ weight.T + bias, domain, weights)))


def known_rows(
    features: Tensor, domain_id: Tensor, weights: Tensor | None, *, domains: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (K, D), domains and weights (K,) of the K rows of known domain, on the CPU, in double
    precision.

    Raises ModelError where there is none, or a value is not finite.
    """
    x, domain = features.detach().cpu().double(), domain_id.cpu()
    known = (domain >= 0) & (domain < domains)
    x, domain = x[known], domain[known]
    if not len(x):
        raise ModelError("no row has a known domain, so the domain head cannot be fitted; give domain ids")
    if not bool(torch.isfinite(x).all()):
        raise ModelError("features hold values that are not finite; the model is broken, train it again")
    return x, domain, None if weights is None else weights.cpu().double()[known]


def fit_linear(
    x: Tensor, domain: Tensor, *, domains: int, penalty: float | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weights (N, D) and biases (N,) for `x` (K, D) as it comes, fitted to it standardised."""
    centre, spread = x.mean(0), x.std(0, correction=0).clamp(min=SMALLEST_SPREAD)
    if penalty is None:
        penalty = PENALTY * min(1.0, (ROWS / len(x)) ** 0.5)
    weight, bias = _minimise((x - centre) / spread, domain, domains, penalty, weights)
    raw = weight / spread
    return raw, bias - raw @ centre


def _minimise(
    x: Tensor, domain: Tensor, domains: int, penalty: float, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weights (N, D) and biases (N,) where the gradient vanishes."""
    weight = torch.zeros(domains, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(domains, dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=ROUNDS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        search.zero_grad()
        loss = mean_loss(x @ weight.T + bias, domain, weights)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
