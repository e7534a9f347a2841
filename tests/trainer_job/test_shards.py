"""A sweep in parts: every unit in exactly one, and the index of an Indexed Job."""

from __future__ import annotations

import pytest

from trainer_job.errors import ConfigError
from trainer_job.shards import Shard, parse_shard
from trainer_job.units import Unit

UNITS = [Unit(name, seed) for seed in (0, 1) for name in ("none", "moe", "layers")]


@pytest.mark.parametrize("count", [1, 2, 4, 6, 9])
def test_every_unit_is_in_exactly_one_shard(count: int) -> None:
    dealt = [unit for index in range(count) for unit in Shard(index, count).of(UNITS)]
    assert sorted(unit.name for unit in dealt) == sorted(unit.name for unit in UNITS)


def test_a_shard_is_named_or_taken_from_kubernetes() -> None:
    assert parse_shard("2/5", {}) == Shard(2, 5)
    assert parse_shard("auto/5", {"JOB_COMPLETION_INDEX": "4"}) == Shard(4, 5)


@pytest.mark.parametrize("text", ["5/5", "1", "a/3", "1/b", "-1/3", "/3"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not of the form I/N"):
        parse_shard(text, {})


def test_outside_of_an_indexed_job_auto_is_refused() -> None:
    with pytest.raises(ConfigError, match="JOB_COMPLETION_INDEX is not set"):
        parse_shard("auto/3", {})
