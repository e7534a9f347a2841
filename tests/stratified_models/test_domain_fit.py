"""The domain head fitted to the end: against another implementation, and that nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from stratified_models.domain_fit import PENALTY, ROWS, fit_domain_head_, fit_head_, shared_weights
from stratified_models.domains import DomainHead
from stratified_models.errors import ModelError
from stratified_models.features import features_of, pooled_of
from tests.stratified_models.conftest import Build

GAIN = 10.0


def head(domains: int = 3) -> DomainHead:
    made = DomainHead(
        width=6, domains=domains, classes=2, allowed=[[0, 1]] * domains, bias=True, dropout=0.5, gain=GAIN
    )
    made.initialise_()
    return made


def rows(count: int = 300) -> tuple[Tensor, Tensor]:
    """Three domains that overlap, in features of unlike scales far from the origin."""
    generator = torch.Generator().manual_seed(0)
    domain = torch.arange(count) % 3
    x = torch.randn(count, 6, generator=generator)
    x[:, 0] += 2 * domain
    x[:, 3] -= 1.5 * (domain == 1)
    return x * torch.tensor([1, 0.01, 5, 2, 0.3, 1.0]) + 7, domain


def test_it_finds_what_logistic_regression_finds() -> None:
    x, domain = rows()
    made, penalty = head(), 0.02
    report = fit_head_(made, x, domain, penalty=penalty)
    scaled = StandardScaler().fit(x.double().numpy())
    other = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-8, max_iter=5000)
    other.fit(scaled.transform(x.double().numpy()), domain.numpy())
    expected = other.predict_proba(scaled.transform(x.double().numpy()))
    found = made.train(False)(x, None).weights.detach().numpy()
    assert np.abs(found - expected).max() < 1e-3
    assert report.rows == 300
    assert report.before == pytest.approx(np.log(3), abs=1e-4)  # a head of zeros knows nothing
    assert report.after < 0.6


def test_the_same_rows_give_the_same_head_whatever_it_was() -> None:
    one, two = head(), head()
    with torch.no_grad():
        two.weight.normal_()
    fit_head_(one, *rows())
    fit_head_(two, *rows())
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


def test_weighted_rows_give_what_logistic_regression_finds() -> None:
    x, domain = rows()
    made, penalty = head(), 0.02
    weights = 0.5 + (torch.arange(len(x)) % 7).double()
    report = fit_head_(made, x, domain, penalty=penalty, weights=weights)
    scaled = StandardScaler().fit(x.double().numpy())
    other = LogisticRegression(C=1 / (penalty * float(weights.sum())), tol=1e-8, max_iter=5000)
    other.fit(scaled.transform(x.double().numpy()), domain.numpy(), sample_weight=weights.numpy())
    expected = other.predict_proba(scaled.transform(x.double().numpy()))
    found = made.train(False)(x, None).weights.detach().numpy()
    assert np.abs(found - expected).max() < 1e-3
    losses = -np.log(expected[np.arange(len(x)), domain])
    assert report.after == pytest.approx(np.average(losses, weights=weights), abs=1e-4)


def test_weights_of_one_change_nothing() -> None:
    one, two = head(), head()
    fit_head_(one, *rows())
    fit_head_(two, *rows(), weights=torch.ones(300))
    assert torch.allclose(one.weight, two.weight, atol=1e-6)


def test_domains_count_as_they_do_among_the_rows_that_were_drawn() -> None:
    drawn = torch.tensor([0, 0, 0, 1, -1])
    domain = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, -1])
    weights = shared_weights(domain, drawn)
    assert weights.tolist() == [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0, 0]


def test_more_rows_than_the_penalty_was_chosen_for_take_less_of_it() -> None:
    x, domain = (torch.cat([part] * 54) for part in rows())  # 16,200
    one, two = head(), head()
    fit_head_(one, x, domain)
    fit_head_(two, x, domain, penalty=PENALTY * (ROWS / len(x)) ** 0.5)
    assert torch.equal(one.weight, two.weight)


def test_rows_of_unknown_domain_are_left_out() -> None:
    x, domain = rows()
    strange, unknown = 100 * torch.ones(20, 6), torch.full((20,), -1)
    one, two = head(), head()
    fit_head_(one, x, domain)
    assert fit_head_(two, torch.cat([x, strange]), torch.cat([domain, unknown])).rows == len(x)
    assert torch.equal(one.weight, two.weight)


def test_a_domain_without_rows_is_unlikely_and_a_lone_one_certain() -> None:
    x, domain = rows()
    made = head(4).train(False)
    fit_head_(made, x, domain)
    assert float(made(x, None).weights[:, 3].max()) < 1e-3
    lone = head(1).train(False)
    fit_head_(lone, x, torch.zeros_like(domain))
    assert torch.equal(lone(x, None).weights, torch.ones(len(x), 1))


@pytest.mark.parametrize(
    ("features", "domains", "message"),
    [
        (torch.ones(4, 6), torch.full((4,), -1), "known domain"),
        (torch.full((4, 6), torch.inf), torch.zeros(4, dtype=torch.long), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, domains: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit_head_(head(), features, domains)


@pytest.mark.parametrize("variant", ["none", "moe"])
def test_of_a_model_only_the_head_changes(build: Build, variant: str) -> None:
    model = build(variant).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.randint(5, 40, (12, 9), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "domain_id": torch.arange(12) % 2}
    seen = features_of(model, [batch])
    assert fit_domain_head_(model, seen).after < fit_domain_head_(model, seen, penalty=1e3).after
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"domain_head.weight", "domain_head.bias"}
    assert model.training
    with pytest.raises(ModelError, match="no training rows"):
        features_of(model, [])


def test_a_window_of_each_row_that_is_long_enough_is_read_too(build: Build) -> None:
    model = build("none").prepare_for_inference()
    ids = torch.randint(5, 40, (4, 14), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[2:, 6:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "domain_id": torch.zeros(4, dtype=torch.long)}
    rows = features_of(model, [batch, batch], seed=3)
    assert rows.windows is not None
    assert (rows.windows.tokens > 0).tolist() == [True, True, False, False] * 2
    assert (rows.windows.features[2:4] == 0).all()
    assert not torch.equal(rows.windows.features[0], rows.features[0])
    again = features_of(model, [batch, batch], seed=3)
    assert again.windows is not None
    assert torch.equal(again.windows.features, rows.windows.features)
    taken = rows.take(torch.tensor([1, 2])).windows
    assert taken is not None
    assert torch.equal(taken.tokens, rows.windows.tokens[1:3])


def test_features_are_those_that_the_head_reads(build: Build) -> None:
    model = build("layers").prepare_for_inference()
    ids = torch.randint(5, 40, (5, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[2:, 6:] = 0
    encoded = model.encode(ids, mask)
    features, tokens, coordinates = model.pooled_features({"input_ids": ids, "attention_mask": mask})
    assert torch.equal(features, encoded.pooled)
    assert torch.equal(tokens, encoded.content.sum(-1))
    assert coordinates is not None
    assert coordinates.isnan().any(-1).logical_not().sum(-1).tolist() == tokens.tolist()


def test_what_the_head_alone_reads_is_a_part_of_all_that_is_read(build: Build) -> None:
    model = build("routing", moved=True)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(10, 40, (5, 9), generator=generator)
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "domain_id": torch.arange(5) % 2}]
    whole, part = features_of(model, batches), pooled_of(model, batches)
    for one, other in zip(whole[:3], part[:3], strict=True):
        assert torch.equal(one, other)
    assert (part.coordinates, part.windows) == (None, None)
    with pytest.raises(ModelError, match="no rows came"):
        pooled_of(model, [])
