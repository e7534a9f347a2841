"""The log of an evaluation names shares, and information beside its baseline."""

from __future__ import annotations

import numpy as np
import pytest

from trainer_job.inspection.log import strata_log

RNG = np.random.default_rng(0)
ROWS = {
    "occupancy": RNG.dirichlet(np.ones(4), size=300),
    "domain_id": RNG.integers(0, 3, 300),
    "labels": RNG.integers(0, 3, 300),
}


def test_shares_sum_to_one_and_unrelated_strata_tell_what_chance_tells() -> None:
    figures = strata_log(ROWS)
    shares = [value for name, value in figures.items() if name.startswith("strata/occupancy_")]
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == 4
    assert 1 < figures["strata/effective"] <= 4
    assert figures["strata/information_domain"] < 3 * figures["strata/information_domain_shuffled"]


def test_strata_that_are_the_domains_stand_far_above_the_shuffled() -> None:
    figures = strata_log({**ROWS, "occupancy": np.eye(4)[ROWS["domain_id"]]})
    assert figures["strata/information_domain"] == pytest.approx(np.log(3), abs=0.02)
    assert figures["strata/information_domain"] > 20 * figures["strata/information_domain_shuffled"]


def test_without_strata_there_is_nothing_to_say() -> None:
    assert strata_log({"labels": ROWS["labels"], "domain_id": ROWS["domain_id"]}) == {}
