"""The stratum gate: a mixture of probabilistic PCA over hidden states, and the posterior that variants use.

It does not know what the strata are used for, nor how its density is first placed (see `calibration`).

What is unusual here:
- The coordinates u = s·P(sg[h] − c) are buffers, never trained: a trainable P would raise the likelihood by
  shrinking the space.
- The density (means, loadings, log_variances, log_shares) learns from the geometry loss alone. The task moves
  the posterior only through log_beta, token, row and domain_prior, all of which start at zero or at 4/g.
- Everything runs in the gate's own precision with autocast off: in bfloat16, tokens change stratum.
- `fold_` keeps A_k, A_kμ_k, μ_k, constants and 1/σ² as buffers: inference then is two matrix products.

Source: Tipping & Bishop, Mixtures of probabilistic principal component analysers, Neural Computation 11(2),
1999. B rows, T tokens, D width, g coordinates, K strata, R largest rank, N domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

__all__ = ["GEOMETRY", "GateReading", "StratumGate", "Terms", "mixture_log_density", "mixture_terms"]

GEOMETRY: tuple[str, ...] = ("means", "loadings", "log_variances", "log_shares")
VARIANCE_FLOOR = 1e-4
PROJECTION_SEED = 0


class Terms(NamedTuple):
    """What the density needs of its parameters: all of it, so a half-refreshed mixture cannot arise.

    Attributes:
        whiten: A_k = L_k⁻¹W_kᵀ/σ_k, stacked over strata, (K·R, g).
        offset: A_kμ_k, (K·R,).
        means: μ_k, (K, g).
        precision: 1/σ_k², (K,).
        constant: log π_k − ½(g log 2π + log|C_k|) , (K,).
    """

    whiten: Tensor
    offset: Tensor
    means: Tensor
    precision: Tensor
    constant: Tensor


class GateReading(NamedTuple):
    """What the gate says of a batch.

    Attributes:
        posterior: p, (B, T, K); positions that are not content carry the row's mean.
        occupancy: mean posterior over content tokens, (B, K).
        log_likelihood: log Σ_k e^{ℓ_k} of each token, in nats, (B, T); None where no density was asked.
    """

    posterior: Tensor
    occupancy: Tensor
    log_likelihood: Tensor | None


def mixture_terms(
    *, means: Tensor, loadings: Tensor, rank_mask: Tensor, log_variances: Tensor, log_shares: Tensor
) -> Terms:
    """Reduce the mixture's parameters by K Cholesky factors of size R×R (never g×g).

    A column that `rank_mask` (K, R) removes leaves only σ² on the diagonal of M_k, so the padded formula is
    exact for every rank and all strata run as one batch.
    """
    strata, g, rank = loadings.shape
    variances = torch.exp(log_variances) + VARIANCE_FLOOR  # (K,)
    w = loadings * rank_mask[:, None, :]  # (K, g, R)
    eye = torch.eye(rank, dtype=w.dtype, device=w.device)
    chol = torch.linalg.cholesky(w.mT @ w + variances[:, None, None] * eye)  # (K, R, R)
    whiten = (
        torch.linalg.solve_triangular(chol, w.mT, upper=False) / variances.sqrt()[:, None, None]
    )  # (K, R, g)
    log_det = (g - rank) * torch.log(variances) + 2 * torch.log(chol.diagonal(dim1=-2, dim2=-1)).sum(-1)
    constant = torch.log_softmax(log_shares, dim=0) - 0.5 * (g * math.log(2 * math.pi) + log_det)
    offset = (whiten @ means[:, :, None]).reshape(strata * rank)
    return Terms(whiten.reshape(strata * rank, g), offset, means, 1 / variances, constant)


def mixture_log_density(u: Tensor, terms: Terms) -> Tensor:
    """ℓ_k(u) = log π_k + log N(u; μ_k, W_kW_kᵀ + σ_k²I) in nats, (…, g) → (…, K), by two matrix products."""
    strata = terms.means.shape[0]
    residual = u @ terms.whiten.T - terms.offset  # (…, K·R)
    explained = residual.square().reshape(*u.shape[:-1], strata, -1).sum(-1)  # (…, K)
    distance = u.square().sum(-1, keepdim=True) - 2 * (u @ terms.means.T) + terms.means.square().sum(-1)
    density: Tensor = terms.constant - 0.5 * (terms.precision * distance - explained)
    return density


def _orthonormal(rows: int, columns: int, generator: torch.Generator | None = None) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(rows, columns, generator=generator, device="cpu")).Q
    return basis


def _unfold_(gate: StratumGate, _: object) -> None:
    gate.unfold_()


class StratumGate(nn.Module):
    """Posterior over strata of every token, and the density of its hidden state.

    Args:
        width: D.
        coordinates: g, at most D.
        ranks: r_k, one per stratum, each at most g.
        domains: N, for the prior over strata of each domain.
    """

    projection: Tensor
    centre: Tensor
    scale: Tensor
    rank_mask: Tensor

    def __init__(self, *, width: int, coordinates: int, ranks: Sequence[int], domains: int) -> None:
        super().__init__()
        self.coordinates, self.ranks = coordinates, tuple(ranks)
        strata, rank = len(ranks), max(ranks)
        self.means = nn.Parameter(torch.empty(strata, coordinates))
        self.loadings = nn.Parameter(torch.empty(strata, coordinates, rank))
        self.log_variances = nn.Parameter(torch.empty(strata))
        self.log_shares = nn.Parameter(torch.empty(strata))
        self.log_beta = nn.Parameter(torch.empty(1))  # FSDP shards no scalar
        self.token = nn.Parameter(torch.empty(strata, width))
        self.row = nn.Parameter(torch.empty(strata, width))
        self.domain_prior = nn.Parameter(torch.empty(domains, strata))
        self.register_buffer("projection", torch.empty(coordinates, width))
        self.register_buffer("centre", torch.empty(width))
        self.register_buffer("scale", torch.empty(()))
        self.register_buffer("rank_mask", torch.empty(strata, rank), persistent=False)
        shapes = [(strata * rank, coordinates), (strata * rank,), (strata, coordinates), (strata,), (strata,)]
        for name, shape in zip(Terms._fields, shapes, strict=True):
            self.register_buffer(f"folded_{name}", torch.zeros(shape), persistent=False)
        self.folded = self.frozen = False
        self.register_load_state_dict_post_hook(_unfold_)  # type: ignore[no-untyped-call]  # untyped in torch

    @torch.no_grad()
    def initialise_(self) -> None:
        """Place an uncalibrated density: fixed random projection, unit variances, uniform shares."""
        strata, g, rank = self.loadings.shape
        fixed = torch.Generator().manual_seed(PROJECTION_SEED)
        init.copy_(self.projection, _orthonormal(self.centre.shape[0], g, fixed).T)
        init.zeros_(self.centre)
        init.ones_(self.scale)
        init.copy_(self.rank_mask, torch.arange(rank) < torch.tensor(self.ranks)[:, None])
        init.normal_(self.means, std=0.5)
        init.copy_(self.loadings, torch.stack([_orthonormal(g, rank) for _ in range(strata)]))
        init.constant_(self.log_variances, math.log(1 - VARIANCE_FLOOR))
        init.zeros_(self.log_shares)
        init.constant_(self.log_beta, math.log(4 / g))
        for zero in (self.token, self.row, self.domain_prior):
            init.zeros_(zero)
        for name in Terms._fields:
            init.zeros_(getattr(self, f"folded_{name}"))
        self.folded = False

    def train(self, mode: bool = True) -> StratumGate:
        """Switch mode; training computes the terms anew, so it drops the folded ones."""
        if mode:
            self.unfold_()
        if self.frozen:
            self.requires_grad_(False)  # loading makes new parameters, and they forget it
        super().train(mode)
        return self

    def freeze_(self) -> None:
        """Let nothing train the gate, from now on and after every load."""
        self.frozen = True
        self.requires_grad_(False)

    def unfold_(self) -> None:
        """Forget the folded terms; the next forward computes them."""
        self.folded = False

    @torch.no_grad()
    def fold_(self) -> None:
        """Store the density's terms, all of them; call again whenever a parameter has changed."""
        for name, value in self.computed_terms()._asdict().items():
            getattr(self, f"folded_{name}").copy_(value)
        self.folded = True

    def computed_terms(self) -> Terms:
        """The density's terms from the present parameters."""
        return mixture_terms(
            means=self.means,
            loadings=self.loadings,
            rank_mask=self.rank_mask,
            log_variances=self.log_variances,
            log_shares=self.log_shares,
        )

    def terms(self) -> Terms:
        """The density's terms: the folded ones if there are any."""
        if self.folded:
            return Terms(*(getattr(self, f"folded_{name}") for name in Terms._fields))
        return self.computed_terms()

    def coordinates_of(self, hidden: Tensor) -> Tensor:
        """u = s·P(sg[h] − c): (…, D) → (…, g)."""
        centred = hidden.detach().to(self.centre.dtype) - self.centre
        return self.scale * (centred @ self.projection.T)

    def forward(self, hidden: Tensor, pooled: Tensor, content: Tensor, domain_weights: Tensor) -> GateReading:
        """Read the strata.

        Args:
            hidden: h^(ℓ_g), (B, T, D).
            pooled: its mean over content tokens, (B, D).
            content: content tokens, (B, T) bool.
            domain_weights: q, (B, N).
        """
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            density = mixture_log_density(self.coordinates_of(hidden), self.terms())  # (B, T, K)
            evidence = density.detach()
            evidence = torch.exp(self.log_beta) * (evidence - evidence.amax(-1, keepdim=True))
            dtype = self.token.dtype
            row = pooled.to(dtype) @ self.row.T + self._prior(domain_weights.to(dtype))  # (B, K)
            scores = evidence + hidden.to(dtype) @ self.token.T + row[:, None, :]  # (B, T, K)
            posterior = torch.softmax(scores, dim=-1)
            share = content.to(dtype)
            count = share.sum(-1, keepdim=True)  # (B, 1)
            mean = torch.einsum("bt,btk->bk", share, posterior) / count.clamp(min=1)
            occupancy = torch.where(count > 0, mean, torch.softmax(row, dim=-1))  # (B, K)
            posterior = torch.where(content[:, :, None], posterior, occupancy[:, None, :])
            return GateReading(posterior, occupancy, torch.logsumexp(density, dim=-1))

    def _prior(self, domain_weights: Tensor) -> Tensor:
        """log Σ_d q_d softmax(Ψ_d)_k + log K, (B, N) → (B, K); 0 at initialisation."""
        return torch.log(domain_weights @ torch.softmax(self.domain_prior, dim=-1)) + math.log(
            len(self.ranks)
        )
