"""Density against scipy, torch and scikit-learn (invariants 10, 11), folding (16), posterior."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import Tensor

from stratified_models.gate import GEOMETRY, StratumGate, Terms, mixture_log_density, mixture_terms
from tests.stratified_models.conftest import Build, largest

RANKS = (1, 2, 4, 5)


def make_gate(domains: int = 3, *, moved: bool = True) -> StratumGate:
    gate = StratumGate(width=12, coordinates=8, ranks=RANKS, domains=domains)
    gate.initialise_()
    if moved:
        with torch.no_grad():
            for parameter in gate.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return gate


def mixture(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    strata, g, rank = len(RANKS), 8, max(RANKS)
    return {
        "means": torch.randn(strata, g, dtype=dtype),
        "loadings": torch.randn(strata, g, rank, dtype=dtype),
        "rank_mask": (torch.arange(rank) < torch.tensor(RANKS)[:, None]).to(dtype),
        "log_variances": torch.randn(strata, dtype=dtype) - 1,
        "log_shares": torch.randn(strata, dtype=dtype),
    }


def test_invariant_10_density_is_scipys_and_torchs() -> None:
    parts = mixture()
    u = 3 * torch.randn(50, 8, dtype=torch.float64)
    found = mixture_log_density(u, mixture_terms(**parts))
    for k, rank in enumerate(RANKS):
        w = parts["loadings"][k, :, :rank]
        noise = (torch.exp(parts["log_variances"][k]) + 1e-4) * torch.eye(8, dtype=torch.float64)
        covariance = w @ w.T + noise
        share = torch.log_softmax(parts["log_shares"], 0)[k]
        scipy = multivariate_normal(parts["means"][k].numpy(), covariance.numpy()).logpdf(u.numpy())
        reference: Any = torch.distributions.MultivariateNormal(parts["means"][k], covariance)
        torchs = reference.log_prob(u)
        assert largest(found[:, k], torch.from_numpy(scipy) + share) < 1e-9
        assert largest(found[:, k], torchs + share) < 1e-9


def test_invariant_10_single_precision_is_close_to_double() -> None:
    parts = mixture()
    u = 3 * torch.randn(200, 8, dtype=torch.float64)
    exact = mixture_log_density(u, mixture_terms(**parts))
    single = mixture_log_density(
        u.float(), mixture_terms(**{name: value.float() for name, value in parts.items()})
    )
    assert float(((single - exact).abs() / (1 + exact.abs())).max()) < 1e-5


def test_invariant_11_one_component_is_scikit_learns_pca() -> None:
    points = np.random.default_rng(0).normal(size=(400, 8)) @ np.diag([4, 3, 2, 1, 0.5, 0.5, 0.4, 0.3])
    pca = PCA(n_components=3).fit(points)
    noise = pca.noise_variance_
    loadings = pca.components_.T * np.sqrt(pca.explained_variance_ - noise)
    terms = mixture_terms(
        means=torch.from_numpy(pca.mean_)[None],
        loadings=torch.from_numpy(loadings)[None],
        rank_mask=torch.ones(1, 3, dtype=torch.float64),
        log_variances=torch.tensor([math.log(noise - 1e-4)], dtype=torch.float64),
        log_shares=torch.zeros(1, dtype=torch.float64),
    )
    found = mixture_log_density(torch.from_numpy(points), terms)[:, 0]
    assert np.abs(found.numpy() - pca.score_samples(points)).max() < 1e-9


def read(gate: StratumGate, hidden: Tensor) -> Tensor:
    content = torch.ones(hidden.shape[:2], dtype=torch.bool)
    weights = torch.full((len(hidden), gate.domain_prior.shape[0]), 1 / gate.domain_prior.shape[0])
    posterior: Tensor = gate(hidden, hidden.mean(1), content, weights).posterior
    return posterior


def test_invariant_16_folded_gate_is_the_computed_one() -> None:
    gate, hidden = make_gate().train(False), torch.randn(2, 9, 12)
    computed = read(gate, hidden)
    gate.fold_()
    assert torch.equal(read(gate, hidden), computed)
    with torch.no_grad():
        gate.means.add_(1.0)
    assert torch.equal(read(gate, hidden), computed)  # stale: it does not see the new means
    gate.fold_()
    assert largest(read(gate, hidden), computed) > 0.05


def test_training_and_loading_unfold() -> None:
    gate = make_gate()
    gate.fold_()
    assert gate.train(False).folded
    assert not gate.train().folded
    gate.fold_()
    gate.load_state_dict(make_gate().state_dict())
    assert not gate.folded


def test_the_whole_fold_or_nothing() -> None:
    gate = make_gate()
    gate.fold_()
    for name, value in gate.computed_terms()._asdict().items():
        assert torch.equal(getattr(gate, f"folded_{name}"), value)
    assert len(Terms._fields) == 5


def test_size_is_the_formula() -> None:
    for width, total in ((768, 29_241), (384, 23_097)):
        gate = StratumGate(width=width, coordinates=64, ranks=tuple(range(4, 33, 4)), domains=5)
        assert sum(parameter.numel() for parameter in gate.parameters()) == total


def test_starts_uniform_in_domains_and_at_a_sixteenth() -> None:
    gate = StratumGate(width=70, coordinates=64, ranks=(4, 8), domains=3)
    gate.initialise_()
    assert math.isclose(float(torch.exp(gate.log_beta.detach())), 1 / 16, rel_tol=1e-6)
    eye = gate.projection @ gate.projection.T
    assert largest(eye, torch.eye(64)) < 1e-5
    weights = torch.softmax(torch.randn(4, 3), -1)
    assert largest(gate._prior(weights), torch.zeros(1)) < 1e-6


def test_the_task_moves_only_temperature_token_row_and_prior() -> None:
    gate = make_gate()
    torch.autograd.backward((read(gate, torch.randn(2, 5, 12)) * torch.randn(2, 5, 4)).sum())
    assert all(
        getattr(gate, name).grad is None or not bool(getattr(gate, name).grad.any()) for name in GEOMETRY
    )
    for name in ("log_beta", "token", "row", "domain_prior"):
        assert bool(getattr(gate, name).grad.any()), name


def test_the_density_learns_from_its_likelihood_alone() -> None:
    gate, hidden = make_gate(), torch.randn(2, 5, 12, requires_grad=True)
    content = torch.ones(2, 5, dtype=torch.bool)
    gate(hidden, hidden.mean(1), content, torch.ones(2, 3) / 3).log_likelihood.sum().backward()
    assert all(bool(getattr(gate, name).grad.any()) for name in GEOMETRY)
    assert gate.log_beta.grad is None
    assert hidden.grad is None


def test_columns_above_the_rank_never_act() -> None:
    gate, u = make_gate(), torch.randn(30, 8)
    before = mixture_log_density(u, gate.computed_terms())
    with torch.no_grad():
        gate.loadings.add_(5.0 * (1 - gate.rank_mask)[:, None, :])
    assert torch.equal(mixture_log_density(u, gate.computed_terms()), before)


@pytest.mark.parametrize("variant", ["attention", "moe"])
def test_autocast_does_not_reach_the_gate(variant: str, build: Build, inputs: dict[str, Tensor]) -> None:
    gate = build(variant, moved=True).gate
    assert gate is not None
    hidden = torch.randn(2, 9, 32)
    content, weights = torch.ones(2, 9, dtype=torch.bool), torch.ones(2, 3) / 3
    plain = gate(hidden, hidden.mean(1), content, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gate(hidden, hidden.mean(1), content, weights)
    assert torch.equal(plain.posterior, cast.posterior)
    assert cast.posterior.dtype == torch.float32
