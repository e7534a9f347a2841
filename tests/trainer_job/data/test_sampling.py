"""Quotas add up, respect capacities, and draws are seeded and independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_job.data.sampling import allocate, domain_weights, draw, generator

SIZES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 50), min_size=1)


def test_even_split_gives_the_remainder_to_the_first() -> None:
    assert allocate(4000, {"a": 1, "b": 1, "c": 1}) == {"a": 1334, "b": 1333, "c": 1333}


def test_what_one_cannot_take_is_spread_over_the_others() -> None:
    assert allocate(10, {"a": 1, "b": 1, "c": 1}, capacities={"a": 1, "b": 9, "c": 9}) == {
        "a": 1,
        "b": 5,
        "c": 4,
    }
    assert allocate(10, {"a": 1, "b": 1}, capacities={"a": 2, "b": 3}) == {"a": 2, "b": 3}


@given(total=st.integers(0, 200), sizes=SIZES)
def test_quotas_sum_to_the_total_or_to_all_there_is(total: int, sizes: dict[str, int]) -> None:
    weights = {name: float(size) for name, size in sizes.items()}
    given_out = allocate(total, weights, capacities=sizes)
    assert sum(given_out.values()) == min(total, sum(sizes.values()))
    assert all(0 <= given_out[name] <= sizes[name] for name in sizes)


@given(
    total=st.integers(0, 500), sizes=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 50), min_size=1)
)
def test_every_quota_is_within_one_row_of_its_share(total: int, sizes: dict[str, int]) -> None:
    quotas = allocate(total, {name: float(size) for name, size in sizes.items()})
    whole = sum(sizes.values())
    assert all(abs(quotas[name] - total * size / whole) < 1 for name, size in sizes.items())


def test_temperature_flattens_shares_by_size() -> None:
    sizes = {"big": 900, "small": 100}
    assert allocate(100, domain_weights(sizes, shares="size", temperature=1)) == {"big": 90, "small": 10}
    assert allocate(100, domain_weights(sizes, shares="size", temperature=2)) == {"big": 75, "small": 25}
    assert allocate(100, domain_weights(sizes, shares="even", temperature=1)) == {"big": 50, "small": 50}


def test_draw_is_stratified_seeded_and_not_the_head() -> None:
    labels = np.repeat(np.arange(2, dtype=np.int8), 500)
    chosen = draw(labels, {0: 30, 1: 20}, seed=13, name="imdb/train")
    assert np.bincount(labels[chosen]).tolist() == [30, 20]
    assert (np.diff(chosen) > 0).all()
    assert chosen[29] > 100  # spread over the stratum, not its first thirty rows
    assert chosen.tolist() == draw(labels, {0: 30, 1: 20}, seed=13, name="imdb/train").tolist()
    assert chosen.tolist() != draw(labels, {0: 30, 1: 20}, seed=14, name="imdb/train").tolist()
    assert chosen.tolist() != draw(labels, {0: 30, 1: 20}, seed=13, name="sst2/train").tolist()
    assert draw(labels, {}, seed=1, name="x").tolist() == []


def test_generators_of_different_names_differ() -> None:
    assert generator(1, "a", "b").random() != generator(1, "ab").random()
    assert generator(1, "a").random() == pytest.approx(generator(1, "a").random())
