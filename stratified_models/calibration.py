"""Placing the gate's density on real hidden states: PCA, k-means++, and a PCA per cluster.

It does not know where the vectors come from, and reads no labels. Everything runs in double precision on the
CPU, from one seeded generator, so the same vectors give the same gate.

M vectors, D width, g coordinates, K strata, R largest rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stratified_models.errors import ModelError
from stratified_models.gate import VARIANCE_FLOOR, StratumGate, mixture_log_density

__all__ = [
    "LIMIT",
    "GateFit",
    "calibrate_",
    "kmeans",
    "participation_ratio",
    "place_strata_",
    "principal_axes",
]

LIMIT = 20_000  # more vectors cost time and move the fit less than another seed does
ROUNDS = 25
SMALLEST_VARIANCE = 1e-3


@dataclass(frozen=True)
class GateFit:
    """How a calibration went. Strata are in rank order; a model without a gate reports 0 vectors.

    Attributes:
        vectors: number of hidden states used.
        explained: share of their variance inside the g coordinates.
        nll_per_dim: mean negative log-density per coordinate, in nats. Not comparable between projections.
        ranks, shares, participation: r_k, share of vectors, and participation ratio of each stratum.
        effective_strata: exp of the mean entropy of a token's posterior at the gate's temperature.
    """

    vectors: int = 0
    explained: float = 0.0
    nll_per_dim: float = 0.0
    ranks: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    participation: tuple[float, ...] = ()
    effective_strata: float = 1.0


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, falling, and eigenvectors (columns) of the covariance of `centred` (M, D).

    Each axis has its entry of largest magnitude positive: the same data gives the same signs everywhere.
    """
    return _eigen(centred.T @ centred / len(centred))


def _eigen(covariance: Tensor) -> tuple[Tensor, Tensor]:
    values, axes = torch.linalg.eigh(covariance)
    values, axes = values.flip(0).clamp(min=0), axes.flip(1)
    peak = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return values, axes * torch.where(peak < 0, -1.0, 1.0)


def participation_ratio(eigenvalues: Tensor) -> float:
    """(Σλ)² / Σλ²: the number of equal variances that would spread as these do."""
    total = eigenvalues.sum().square() / eigenvalues.square().sum().clamp(min=1e-30)
    return float(total)


def kmeans(points: Tensor, clusters: int, generator: torch.Generator, rounds: int = ROUNDS) -> Tensor:
    """Cluster index (M,) of each of `points` (M, g): k-means++ seeding, then Lloyd's rounds.

    A cluster that runs empty moves to the point that is worst served.
    """
    first = torch.randint(len(points), (1,), generator=generator)
    centres = points[first]
    for _ in range(clusters - 1):
        distance = torch.cdist(points, centres).square().amin(1) + 1e-12
        chosen = torch.multinomial(distance, 1, generator=generator)
        centres = torch.cat([centres, points[chosen]])
    for _ in range(rounds):
        distance, nearest = torch.cdist(points, centres).min(1)
        size = torch.bincount(nearest, minlength=clusters)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = total / size.clamp(min=1)[:, None]
        for slot, empty in enumerate((size == 0).nonzero().flatten().tolist()):
            centres[empty] = points[distance.argsort(descending=True)[slot]]
    return torch.cdist(points, centres).argmin(1)


def _covariances(points: Tensor, nearest: Tensor, clusters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Size (K,), mean (K, g) and covariance (K, g, g) of each cluster.

    A cluster with fewer than 4g points borrows from the covariance within all clusters, in proportion to
    what it lacks: its own would be singular.
    """
    g = points.shape[1]
    size = torch.bincount(nearest, minlength=clusters).to(points.dtype)
    means = (
        torch.zeros(clusters, g, dtype=points.dtype).index_add_(0, nearest, points)
        / size.clamp(min=1)[:, None]
    )
    centred = points - means[nearest]
    within = centred.T @ centred / len(points)
    own = torch.stack([centred[nearest == k].T @ centred[nearest == k] for k in range(clusters)])
    own = own / size.clamp(min=1)[:, None, None]
    trust = (size / (4 * g)).clamp(max=1)[:, None, None]
    return size, means, trust * own + (1 - trust) * within


@torch.no_grad()
def calibrate_(gate: StratumGate, vectors: Tensor, *, seed: int) -> GateFit:
    """Fit `gate` to hidden states `vectors` (M, D), and say how it went.

    Raises:
        ModelError: fewer than max(g, 4K) vectors, or a value that is not finite.
    """
    strata, g, needed = len(gate.ranks), gate.coordinates, max(gate.coordinates, 4 * len(gate.ranks))
    if len(vectors) < needed:
        message = (
            f"{len(vectors)} content tokens cannot place {strata} strata in {g} coordinates; give ≥ {needed}"
        )
        raise ModelError(f"{message}, from more or longer training rows")
    if not bool(torch.isfinite(vectors).all()):
        raise ModelError(
            "hidden states hold values that are not finite; the encoder is broken, load it again"
        )
    generator = torch.Generator().manual_seed(seed)
    hidden = vectors.detach().cpu().double()
    if len(hidden) > LIMIT:
        hidden = hidden[torch.randperm(len(hidden), generator=generator)[:LIMIT]]
    centre = hidden.mean(0)
    values, axes = principal_axes(hidden - centre)
    scale = (g / values[:g].sum().clamp(min=1e-12)).sqrt()
    points = scale * ((hidden - centre) @ axes[:, :g])  # (M, g), unit mean variance
    gate.projection.copy_(axes[:, :g].T)
    gate.centre.copy_(centre)
    gate.scale.copy_(scale)
    shares, ratios = place_strata_(gate, points, generator)
    return _report(gate, points, float(values[:g].sum() / values.sum()), shares, ratios)


@torch.no_grad()
def place_strata_(
    gate: StratumGate, points: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[float]]:
    """Place the density of `gate` on points in its coordinates, (M, g) in double precision.

    Returns each stratum's share of the points, (K,), and its participation ratio, in rank order.
    """
    strata = len(gate.ranks)
    nearest = kmeans(points, strata, generator)
    size, means, covariances = _covariances(points, nearest, strata)
    spectra = [_eigen(covariance) for covariance in covariances]
    ratios = [participation_ratio(spectrum) for spectrum, _ in spectra]
    order = sorted(range(strata), key=ratios.__getitem__)  # flat strata take the low ranks
    for k, (cluster, rank) in enumerate(zip(order, gate.ranks, strict=True)):
        _place_(gate, k, rank, means[cluster], *spectra[cluster])
    shares = (size[order] + 1e-3) / (size + 1e-3).sum()
    gate.log_shares.copy_(torch.log(shares))
    gate.unfold_()
    return shares, [ratios[k] for k in order]


def _place_(gate: StratumGate, k: int, rank: int, mean: Tensor, spectrum: Tensor, axes: Tensor) -> None:
    """σ² = mean of the discarded eigenvalues, W = Q(Λ − σ²)^½ (Tipping & Bishop, eqs. 7 and 8 of the single
    PCA)."""
    discarded = spectrum[rank:] if rank < len(spectrum) else spectrum[-1:]
    variance = discarded.mean().clamp(min=SMALLEST_VARIANCE)
    gate.means[k] = mean.to(gate.means.dtype)
    gate.log_variances[k] = torch.log(variance - VARIANCE_FLOOR).to(gate.means.dtype)
    loadings = axes[:, :rank] * (spectrum[:rank] - variance).clamp(min=0).sqrt()
    # A column of zeros would be a saddle: its gradient is zero for ever.
    gate.loadings[k, :, :rank] = (loadings + 1e-4 * axes[:, :rank]).to(gate.loadings.dtype)
    gate.loadings[k, :, rank:] = 0


def _report(
    gate: StratumGate, points: Tensor, explained: float, shares: Tensor, ratios: list[float]
) -> GateFit:
    density = mixture_log_density(points.to(gate.means), gate.computed_terms())
    posterior = torch.softmax(torch.exp(gate.log_beta) * density, dim=-1)
    entropy = torch.special.entr(posterior).sum(-1).mean()
    return GateFit(
        vectors=len(points),
        explained=explained,
        nll_per_dim=float(-torch.logsumexp(density, -1).mean() / gate.coordinates),
        ranks=gate.ranks,
        shares=tuple(float(x) for x in shares),
        participation=tuple(ratios),
        effective_strata=float(entropy.exp()),
    )
