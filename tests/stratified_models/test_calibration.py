"""Calibration: on known clusters it finds them, in rank order; the same vectors give the same gate."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from stratified_models import ModelError
from stratified_models.calibration import (
    LIMIT,
    GateFit,
    calibrate_,
    kmeans,
    participation_ratio,
    principal_axes,
)
from stratified_models.gate import StratumGate, mixture_log_density
from tests.stratified_models.conftest import Build, largest


def clusters(points: int = 400) -> tuple[Tensor, Tensor]:
    """Three clouds in 12 dimensions, of 6, 1 and 3 dimensions, far apart."""
    dims = (6, 1, 3)
    clouds = []
    for k, dim in enumerate(dims):
        cloud = 0.05 * torch.randn(points, 12)
        cloud[:, :dim] += torch.randn(points, dim)
        cloud[:, 9 + k] += 12.0
        clouds.append(cloud)
    return torch.cat(clouds), torch.arange(3).repeat_interleave(points)


def gate(strata: int = 3) -> StratumGate:
    made = StratumGate(width=12, coordinates=8, ranks=tuple(range(1, strata + 1)), domains=2)
    made.initialise_()
    return made


def test_finds_the_clusters_and_gives_flat_ones_low_ranks() -> None:
    vectors, truth = clusters()
    made = gate()
    fit = calibrate_(made, vectors, seed=0)
    density = mixture_log_density(made.coordinates_of(vectors), made.computed_terms())
    found = density.argmax(-1)
    by_rank = [int(found[truth == cloud].mode().values) for cloud in (1, 2, 0)]  # by rising dimension
    assert by_rank == [0, 1, 2]
    assert list(fit.participation) == sorted(fit.participation)
    assert all(abs(share - 1 / 3) < 0.01 for share in fit.shares)
    assert fit.vectors == 1200
    assert 0.9 < fit.explained <= 1
    assert fit.effective_strata < 1.1


def test_the_density_improves_on_the_uncalibrated_one() -> None:
    vectors, _ = clusters()
    made, random = gate(), gate()
    calibrate_(made, vectors, seed=0)
    random.projection.copy_(made.projection)
    random.centre.copy_(made.centre)
    random.scale.copy_(made.scale)

    def nll(one: StratumGate) -> float:
        density = mixture_log_density(one.coordinates_of(vectors), one.computed_terms())
        return -float(torch.logsumexp(density, -1).mean().detach())

    assert nll(made) < nll(random) - 1


def test_coordinates_are_scikit_learns_components_scaled_to_unit_variance() -> None:
    vectors, _ = clusters()
    made = gate()
    calibrate_(made, vectors, seed=0)
    pca = PCA(n_components=8).fit(vectors.numpy())
    overlap = (made.projection.double() @ torch.from_numpy(pca.components_).double().T).abs()
    assert largest(overlap.diagonal()[:3], torch.ones(3)) < 1e-4
    assert abs(float(made.coordinates_of(vectors).var(0, unbiased=False).mean()) - 1) < 1e-3


def test_the_same_vectors_give_the_same_gate() -> None:
    vectors, _ = clusters()
    one, two = gate(), gate()
    assert calibrate_(one, vectors, seed=4) == calibrate_(two, vectors, seed=4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
        if a.shape == one.means.shape
    )


def test_signs_are_fixed() -> None:
    points = torch.randn(50, 5, dtype=torch.float64)
    _, axes = principal_axes(points - points.mean(0))
    assert bool((axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all())


def test_few_vectors_are_refused_and_a_small_cluster_stays_sound() -> None:
    with pytest.raises(ModelError, match="7 content tokens"):
        calibrate_(gate(), torch.randn(7, 12), seed=0)
    made = gate()
    calibrate_(made, torch.cat([torch.randn(30, 12), torch.randn(2, 12) + 40]), seed=0)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in made.parameters())
    assert bool(torch.isfinite(made.computed_terms().constant).all())


def test_identical_vectors_and_broken_ones() -> None:
    made = gate()
    calibrate_(made, torch.ones(40, 12), seed=0)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in made.parameters())
    broken = torch.randn(40, 12)
    broken[3, 3] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        calibrate_(gate(), broken, seed=0)


def test_kmeans_uses_every_cluster() -> None:
    points = torch.cat([torch.zeros(50, 2), torch.ones(1, 2)]).double()
    points += 1e-3 * torch.randn_like(points)
    nearest = kmeans(points, 4, torch.Generator().manual_seed(0))
    assert len(set(nearest.tolist())) == 4


def test_participation_ratio_of_equal_and_single_variances() -> None:
    assert abs(participation_ratio(torch.ones(7)) - 7) < 1e-6
    assert abs(participation_ratio(torch.tensor([5.0, 0.0, 0.0])) - 1) < 1e-6


def test_samples_above_the_limit() -> None:
    fit = calibrate_(gate(), torch.randn(LIMIT + 5, 12), seed=0)
    assert fit.vectors == LIMIT


def test_model_calibrates_on_content_tokens_and_keeps_its_mode(
    build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build("layers").train()
    fit = model.calibrate_gate_([inputs, inputs], seed=0)
    content = inputs["attention_mask"].bool()
    for special in model.config.special_token_ids:
        content = content & (inputs["input_ids"] != special)
    assert fit.vectors == 2 * int(content.sum())
    assert model.training
    assert build("none").calibrate_gate_([inputs], seed=0) == GateFit()
    with pytest.raises(ModelError, match="0 content tokens"):
        model.calibrate_gate_([], seed=0)
