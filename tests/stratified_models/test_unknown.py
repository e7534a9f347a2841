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
from stratified_models.features import PooledRows, Windows, features_of
from stratified_models.unknown import NEIGHBOUR, FeatureScores, fit_unknown_
from tests.stratified_models.conftest import Build, largest


def cloud(rows: int, *, seed: int = 0) -> PooledRows:
    """Two domains in 6 dimensions, 8 apart along the first; texts of 10 tokens."""
    generator = torch.Generator().manual_seed(seed)
    domain = torch.arange(rows) % 2
    x = torch.randn(rows, 6, generator=generator)
    x[:, 0] += 8 * domain + 1
    return PooledRows(x, torch.full((rows,), 10), domain)


def texts(rows: int, *, shift: float = 0.0, seed: int = 0) -> PooledRows:
    """Three domains in 20 dimensions, each text the mean of 2 to 200 words that scatter by 3."""
    generator = torch.Generator().manual_seed(seed)
    domain = torch.arange(rows) % 3
    tokens = torch.exp(torch.empty(rows).uniform_(0.7, 5.3, generator=generator)).round()
    centre = torch.nn.functional.one_hot(domain, 20).float() * 2
    centre[:, :3] *= 1 - shift  # 1: where no domain is, between them all
    words = 3 * torch.randn(rows, 20, generator=generator) / tokens.sqrt()[:, None]
    return PooledRows(centre + words + 0.3 * torch.randn(rows, 20, generator=generator), tokens, domain)


def fitted(rows: int = 400) -> FeatureScores:
    module = FeatureScores(width=6, domains=2, rows=200)
    module.initialise_()
    module.fit_(cloud(rows))
    return module


def asked(module: FeatureScores, rows: PooledRows, score: str) -> Tensor:
    found: Tensor = module(rows.features, rows.tokens)[score]
    return found


# A domain near the origin lies in every direction, so on the sphere the second task is hard.
@pytest.mark.parametrize(("score", "least"), [("mahalanobis", 0.95), ("nearest", 0.6)])
def test_both_scores_find_what_lies_between_and_beyond_the_domains(score: str, least: float) -> None:
    module = fitted()
    strange = cloud(100, seed=2)
    strange.features[:, 0], strange.features[:, 1] = 5.0, -9.0  # between the two, and off to one side
    assert auroc(asked(module, cloud(200, seed=1), score), asked(module, strange, score)) > least


def test_mahalanobis_is_the_difference_of_two_squared_distances_in_spreads() -> None:
    module = fitted(4000)
    rows = cloud(4000)
    x, domain = rows.features, rows.domain_id
    x = x.double()
    means = torch.stack([x[domain == k].mean(0) for k in (0, 1)])

    def precision(centred: Tensor) -> Tensor:
        """A third by each feature alone, two thirds by a covariance half way to its diagonal."""
        alone = (0.95 * centred.square().mean(0) + 0.05 * centred.square().mean()).diag()
        return (alone.inverse() + 2 * ((torch.cov(centred.T, correction=0) + alone) / 2).inverse()) / 3

    within, overall = precision(x - means[domain]), precision(x - x.mean(0))

    def squared(rows: Tensor, shape: Tensor) -> Tensor:
        return torch.einsum("bi,ij,bj->b", rows, shape, rows)

    def distance(rows: Tensor) -> Tensor:
        own = torch.minimum(squared(rows - means[0], within), squared(rows - means[1], within))
        return (own - squared(rows - x.mean(0), overall)) / 6

    row = torch.tensor([[3.0, 1.0, 0, 0, 0, 0]])
    usual = distance(x)
    spread = 1.2533 * (usual - usual.mean()).abs().mean()
    found = float(module(row, torch.tensor([10]))["mahalanobis"])
    assert found == pytest.approx(float((distance(row.double()) - usual.mean()) / spread), rel=1e-3)


def test_nearest_is_the_distance_to_the_tenth_neighbour_on_the_sphere() -> None:
    module, rows = fitted(), cloud(50, seed=3)
    found = asked(module, rows, "nearest")
    distances = torch.cdist(torch.nn.functional.normalize(rows.features), module.kept).sort().values
    line = torch.corrcoef(torch.stack([found, distances[:, NEIGHBOUR - 1]]))
    assert float(line[0, 1]) > 0.9999  # all of one length: off by a shift and a factor


def test_a_kept_row_is_not_its_own_neighbour() -> None:
    module = FeatureScores(width=20, domains=3, rows=300)
    module.initialise_()
    rows = texts(300)
    module.fit_(rows)
    assert abs(float(asked(module, texts(3000, seed=1), "nearest").mean())) < 0.2


@pytest.mark.parametrize("score", ["mahalanobis", "nearest"])
def test_a_short_text_is_no_stranger_than_a_long_one(score: str) -> None:
    module = FeatureScores(width=20, domains=3, rows=500)
    module.initialise_()
    module.fit_(texts(3000))
    known = texts(3000, seed=1)
    found = asked(module, known, score)
    short = known.tokens < known.tokens.median()
    assert abs(float(found[short].mean() - found[~short].mean())) < 0.3
    assert float(found.std()) == pytest.approx(1, abs=0.35)
    assert auroc(found, asked(module, texts(1000, shift=1.0, seed=2), score)) > 0.75


def test_short_windows_of_rows_say_what_a_short_text_has() -> None:
    """Domains whose rows are all long, as reviews are: without windows a short text of theirs is strange."""
    rows = texts(3000)
    long = rows.take(rows.tokens >= 30)
    short = texts(3000, seed=5).take(texts(3000, seed=5).tokens < 10)
    module = FeatureScores(width=20, domains=3, rows=500)
    module.initialise_()
    module.fit_(long)
    before = asked(module, short, "mahalanobis")
    cut = texts(len(long.tokens), seed=7)
    windows = Windows(cut.features, torch.where(cut.tokens < 10, cut.tokens, torch.zeros(())))
    module.fit_(long._replace(windows=windows))
    after = asked(module, short, "mahalanobis")
    assert abs(float(after.mean())) < 0.3 < abs(float(before.mean()))
    assert float(after.std()) == pytest.approx(1, abs=0.35)
    known = texts(3000, seed=6).take(texts(3000, seed=6).tokens >= 30)
    assert abs(float(asked(module, known, "mahalanobis").mean())) < 0.1


def test_lengths_beyond_those_of_the_rows_count_as_the_nearest_of_them() -> None:
    module = FeatureScores(width=20, domains=3, rows=500)
    module.initialise_()
    module.fit_(texts(3000))
    row = texts(2, seed=3).features[:1]
    most = float(texts(3000).tokens.max())
    for score in ("mahalanobis", "nearest"):
        assert float(module(row, torch.tensor([10 * most]))[score]) == float(
            module(row, torch.tensor([most]))[score]
        )
        assert torch.isfinite(module(row, torch.tensor([0]))[score]).all()


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
        FeatureScores(width=6, domains=2, rows=200).fit_(
            PooledRows(features, torch.full((len(features),), 9), domains)
        )


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
    fit_unknown_(model, features_of(model, rows_of(batch)), score=score, keep=20)
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
    model = build("none")
    with pytest.raises(ModelError, match="'geometry' is not computed"):
        fit_unknown_(model, features_of(model, rows_of(batch)), score="geometry", keep=20)


def test_geometry_can_be_chosen_where_there_is_a_gate(build: Build, inputs: dict[str, Tensor]) -> None:
    model = build("layers", unknown_score="geometry").prepare_for_inference()
    with torch.no_grad():
        found = model(**inputs)
    assert torch.equal(found.unknown, found.geometry)
