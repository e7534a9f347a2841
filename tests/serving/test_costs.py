"""Tokens a second by length."""

from __future__ import annotations

import math
import random

import pytest

from serving.costs import LEAST, MOST, SMOOTHING, TELLING, CostModel, Stretch, bucket


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 128), (512, 512)]
)
def test_buckets_are_powers_of_two_from_sixteen(length: int, expected: int) -> None:
    assert bucket(length) == expected


def test_before_any_measurement_the_initial_rate_holds() -> None:
    assert CostModel(initial=50).rate(300) == 50


def test_the_first_measurement_is_believed_and_later_ones_smooth() -> None:
    costs = CostModel(initial=1)
    costs.observe(longest=60, tokens=100, seconds=0.1)
    assert costs.rate(60) == pytest.approx(1000)
    costs.observe(longest=60, tokens=100, seconds=0.05)
    assert costs.rate(60) == pytest.approx(1000 + SMOOTHING * 1000)


def test_an_unmeasured_bucket_borrows_from_the_nearest() -> None:
    costs = CostModel(initial=1)
    costs.observe(longest=16, tokens=100, seconds=1)
    costs.observe(longest=256, tokens=500, seconds=1)
    assert costs.rate(128) == 500
    assert costs.rate(20) == 100


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 1.0), (5, 0.0)])
def test_a_measurement_without_substance_is_ignored(tokens: int, seconds: float) -> None:
    costs = CostModel(initial=7)
    costs.observe(longest=16, tokens=tokens, seconds=seconds)
    assert costs.rate(16) == 7


def test_seconds_add_up_over_buckets() -> None:
    costs = CostModel(initial=1)
    costs.observe(longest=16, tokens=100, seconds=1)
    costs.observe(longest=64, tokens=400, seconds=1)
    assert costs.seconds({16: 50, 64: 200, 128: 0}) == pytest.approx(1.0)


def test_the_stretch_finds_the_wait_that_95_of_100_stay_below() -> None:
    rng, stretch, seen = random.Random(0), Stretch(), list[float]()
    for _ in range(20_000):
        stretch.observe(predicted=0.5, waited=0.5 * rng.expovariate(1.5))  # 95 % of them below 2.0
        seen.append(stretch.factor)
    assert sum(seen[2000:]) / len(seen[2000:]) == pytest.approx(-math.log(0.05) / 1.5, rel=0.05)


def test_the_stretch_has_bounds_and_learns_nothing_from_short_waits() -> None:
    stretch = Stretch()
    for _ in range(200):
        stretch.observe(predicted=TELLING / 2, waited=math.inf)
    assert stretch.factor == LEAST
    for _ in range(200):
        stretch.observe(predicted=1.0, waited=math.inf)
    assert stretch.factor == MOST
    for _ in range(10_000):
        stretch.observe(predicted=1.0, waited=0.0)
    assert stretch.factor == LEAST
