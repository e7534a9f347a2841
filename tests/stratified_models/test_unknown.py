"""Out-of-domain scores on features: known answers, and that they travel with the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stratified_models import StratifiedForSequenceClassification
from stratified_models.config import StratifiedConfig
from stratified_models.diagnostics import auroc
from stratified_models.errors import ModelError
from stratified_models.unknown import NEIGHBOUR, FeatureScores, fit_unknown_
from tests.stratified_models.conftest import Build, largest


def cloud(rows: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two domains in 6 dimensions, 8 apart along the first."""
    generator = torch.Generator().manual_seed(seed)
    domain = torch.arange(rows) % 2
    x = torch.randn(rows, 6, generator=generator)
    x[:, 0] += 8 * domain + 1
    return x, domain


def fitted(rows: int = 400) -> FeatureScores:
    module = FeatureScores(width=6, domains=2, rows=200)
    module.initialise_()
    module.fit_(*cloud(rows))
    return module


# A domain near the origin lies in every direction, so on the sphere the second task is hard.
@pytest.mark.parametrize(("score", "least"), [("mahalanobis", 0.95), ("nearest", 0.6)])
def test_both_scores_find_what_lies_between_and_beyond_the_domains(score: str, least: float) -> None:
    module = fitted()
    known = module(cloud(200, seed=1)[0])[score]
    strange = cloud(100, seed=2)[0]
    strange[:, 0], strange[:, 1] = 5.0, -9.0  # between the two, and off to one side
    assert auroc(known, module(strange)[score]) > least


def test_mahalanobis_is_the_difference_of_two_squared_distances() -> None:
    module = fitted(4000)
    x, domain = cloud(4000)
    row = torch.tensor([[3.0, 1.0, 0, 0, 0, 0]])
    means = torch.stack([x[domain == k].mean(0) for k in (0, 1)]).double()
    within = torch.cov((x.double() - means[domain]).T, correction=0)
    overall = torch.cov(x.double().T, correction=0)

    def squared(offset: Tensor, covariance: Tensor) -> float:
        shrunk = 0.95 * covariance + 0.05 * covariance.diagonal().mean() * torch.eye(6, dtype=torch.double)
        return float(offset @ torch.linalg.solve(shrunk, offset))

    expected = min(squared(row[0].double() - mean, within) for mean in means)
    expected -= squared(row[0].double() - x.double().mean(0), overall)
    assert 6 * float(module(row)["mahalanobis"]) == pytest.approx(expected, rel=1e-3)  # per dimension, of six


def test_nearest_is_the_distance_to_the_tenth_neighbour_on_the_sphere() -> None:
    module = fitted()
    row = torch.randn(1, 6)
    distances = torch.cdist(torch.nn.functional.normalize(row), module.kept)[0].sort().values
    assert float(module(row)["nearest"]) == pytest.approx(float(distances[NEIGHBOUR - 1]), abs=1e-5)


@pytest.mark.parametrize(
    ("features", "domains", "message"),
    [
        (torch.ones(5, 6), torch.zeros(5, dtype=torch.long), "too few"),
        (torch.full((300, 6), torch.nan), torch.zeros(300, dtype=torch.long), "not finite"),
        (torch.ones(300, 6), torch.full((300,), -1), "known domain"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, domains: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        FeatureScores(width=6, domains=2, rows=200).fit_(features, domains)


def rows_of(batch: dict[str, Tensor], times: int = 4) -> list[dict[str, Tensor]]:
    domain = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    return [{**{k: batch[k] for k in ("input_ids", "attention_mask")}, "domain_id": domain}] * times


@pytest.mark.parametrize("variant", ["none", "moe"])
@pytest.mark.parametrize("score", ["mahalanobis", "nearest"])
def test_fitted_scores_come_from_the_same_pass_and_survive_saving(
    variant: str,
    score: str,
    build: Build,
    batch: dict[str, Tensor],
    inputs: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        before = model(**inputs)
    assert before.mahalanobis is None
    assert torch.equal(before.unknown, before.energy)
    fit_unknown_(model, rows_of(batch), score=score, rows=20)
    with torch.no_grad():
        after = model(**inputs)
    assert torch.equal(after.unknown, after[score])
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.energy, before.energy)
    model.save_pretrained(tmp_path)
    loaded = StratifiedForSequenceClassification.from_pretrained(tmp_path).prepare_for_inference()
    with torch.no_grad():
        assert largest(loaded(**inputs).unknown, after.unknown) < 1e-6
    assert loaded.config.unknown_score == score


def test_a_score_that_the_model_lacks_is_refused(build: Build, batch: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="'nearest' is not computed"):
        StratifiedConfig(unknown_score="nearest")
    with pytest.raises(ModelError, match="'geometry' is not computed"):
        fit_unknown_(build("none"), rows_of(batch), score="geometry", rows=20)
    with pytest.raises(ModelError, match="no training rows"):
        fit_unknown_(build("none"), [], score="nearest")


def test_geometry_can_be_chosen_where_there_is_a_gate(build: Build, inputs: dict[str, Tensor]) -> None:
    model = build("layers", unknown_score="geometry").prepare_for_inference()
    with torch.no_grad():
        found = model(**inputs)
    assert torch.equal(found.unknown, found.geometry)
