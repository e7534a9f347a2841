"""Leaving domains out: what is far is found, what cannot be asked is not, and the choice is the best mean."""

from __future__ import annotations

import pytest
import torch

from stratified_models import left_out
from stratified_models.features import PooledRows
from stratified_models.left_out import choose_score, fit_scores, leave_one_out


def rows(domains: int, each: int, *, far: float, seed: int = 0) -> PooledRows:
    """Domain k lies `far` along dimension k, of six; texts of 5 to 100 tokens."""
    generator = torch.Generator().manual_seed(seed)
    domain = torch.arange(domains * each) % domains
    x = torch.randn(domains * each, 6, generator=generator)
    x += far * torch.nn.functional.one_hot(domain, 6)
    return PooledRows(x, torch.randint(5, 100, (len(x),), generator=generator), domain)


def test_a_domain_far_from_the_others_is_found() -> None:
    found = leave_one_out(rows(4, 60, far=12))
    assert set(found) == {(0,), (1,), (2,), (3,)}
    assert min(entry["mahalanobis"] for entry in found.values()) > 0.9
    score, mean = choose_score(rows(4, 60, far=12))
    assert set(mean) == {"energy", "mahalanobis", "nearest"}
    assert mean[score] == max(mean.values()) > 0.9


def test_domains_that_lie_upon_each_other_are_not_found() -> None:
    _, mean = choose_score(rows(4, 200, far=0))
    assert all(value == pytest.approx(0.5, abs=0.06) for value in mean.values())


def test_two_domains_left_make_one_boundary() -> None:
    assert set(leave_one_out(rows(3, 40, far=3))) == {(0,), (1,), (2,)}


def test_domains_that_nothing_tells_apart_are_left_out_together() -> None:
    apart = rows(5, 80, far=12)
    twins = apart._replace(features=apart.features.clone())
    fourth = twins.domain_id == 3
    twins.features[fourth] += 12 * torch.nn.functional.one_hot(torch.tensor(1), 6)
    twins.features[fourth] -= 12 * torch.nn.functional.one_hot(torch.tensor(3), 6)
    found = leave_one_out(twins)
    assert set(found) == {(0,), (1, 3), (2,), (4,)}
    assert found[1, 3]["mahalanobis"] > 0.9
    assert set(leave_one_out(apart)) == {(0,), (1,), (2,), (3,), (4,)}


def tokens_of(domain: torch.Tensor, *, far: float, seed: int = 0) -> torch.Tensor:
    """Coordinates (M, 12, 6) of tokens; those of domain k lie `far` along k; every other row has seven."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(len(domain), 12, 6, generator=generator)
    found += far * torch.nn.functional.one_hot(domain, 6)[:, None]
    found[::2, 7:] = torch.nan
    return found


def test_geometry_is_asked_where_there_are_tokens_and_wins_where_it_is_best() -> None:
    known = rows(4, 80, far=2)
    known = known._replace(coordinates=tokens_of(known.domain_id, far=9))
    found = leave_one_out(known, ranks=(1, 2, 3))
    assert all(entry["geometry"] > 0.95 > entry["energy"] for entry in found.values())
    score, mean = choose_score(known, ranks=(1, 2, 3))
    assert score == "geometry"
    assert mean["geometry"] == max(mean.values())
    assert "geometry" not in choose_score(known)[1]  # no ranks: no gate


def test_geometry_that_knows_the_domain_does_not_find_it() -> None:
    known = rows(4, 80, far=2)
    known = known._replace(coordinates=tokens_of(known.domain_id, far=9))
    half = torch.arange(len(known.domain_id)) % 8 < 4
    scores = fit_scores(known.take(half), ranks=(1, 1, 1, 1))
    inside = scores(known.take(~half))["geometry"]
    own = scores(known.take(half))["geometry"]
    assert abs(float(inside.mean() - own.mean())) < 0.1


def test_too_few_domains_or_rows_leave_energy() -> None:
    assert choose_score(rows(2, 100, far=3)) == ("energy", {})
    assert choose_score(rows(4, 10, far=3)) == ("energy", {})
    empty = rows(4, 60, far=3)
    bare = empty._replace(coordinates=torch.full((240, 12, 6), torch.nan))
    assert choose_score(bare, ranks=(1, 2)) == choose_score(empty)  # no token to place strata on
    nobody = rows(4, 60, far=3)._replace(domain_id=torch.full((240,), -1))
    assert choose_score(nobody) == ("energy", {})


def test_rows_of_unknown_domain_change_nothing() -> None:
    known = rows(4, 60, far=3)
    strange = PooledRows(100 * torch.ones(30, 6), torch.full((30,), 7), torch.full((30,), -1))
    both = PooledRows(
        features=torch.cat([known.features, strange.features]),
        tokens=torch.cat([known.tokens, strange.tokens]),
        domain_id=torch.cat([known.domain_id, strange.domain_id]),
    )
    assert leave_one_out(both) == leave_one_out(known)


def test_of_many_domains_and_rows_some_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    many = rows(6, 100, far=12)
    assert len(leave_one_out(many, most=2)) == 2
    assert leave_one_out(many, most=2) == leave_one_out(many, most=2)
    monkeypatch.setattr(left_out, "MOST_ROWS", 300)
    assert choose_score(many)[1]["mahalanobis"] > 0.9
    monkeypatch.setattr(left_out, "MOST_ROWS", 60)  # ten of each: too few to ask
    assert choose_score(many) == ("energy", {})
