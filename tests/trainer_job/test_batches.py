"""The order of rows and the plan of evaluations: the same for any number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer_job.tiny import Tiny
from trainer_job.batches import GlobalBatches, planned_steps

LENGTHS = [int(value) for value in np.random.default_rng(0).integers(3, 60, size=107)]


def test_an_epoch_is_whole_global_batches_of_distinct_rows() -> None:
    batches = GlobalBatches(LENGTHS, batch_size=16, seed=3)
    rows = list(batches)
    assert len(rows) == len(batches) == 96
    assert batches.steps == 6
    assert len(set(rows)) == 96


def test_epochs_differ_and_a_seed_repeats() -> None:
    batches = GlobalBatches(LENGTHS, batch_size=16, seed=3)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert first != second
    again = GlobalBatches(LENGTHS, batch_size=16, seed=3)
    assert list(again) == first
    again.set_epoch(1)
    assert list(again) == second
    assert list(GlobalBatches(LENGTHS, batch_size=16, seed=4)) != first


def test_ranks_share_the_global_batches_of_one_rank() -> None:
    rows = list(GlobalBatches(LENGTHS, batch_size=16, seed=0))
    one = [set(rows[at : at + 16]) for at in range(0, 96, 16)]
    micro = [rows[at : at + 8] for at in range(0, 96, 8)]  # as accelerate deals them out
    two = [set(micro[at]) | set(micro[at + 1]) for at in range(0, 12, 2)]
    assert one == two


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    batches = GlobalBatches([5, 6, 7], batch_size=8, seed=0)
    assert batches.steps == 1
    assert len(list(batches)) == 8
    assert set(batches) == {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "total", "stops"),
    [
        (["training.epochs=3"], 30, {10, 20, 30}),
        (["training.epochs=2.5"], 25, {10, 20, 25}),
        (["training.epochs=0.01"], 1, {1}),
        (["training.max_steps=12"], 12, {10, 12}),
        (["training.epochs=2", "training.evaluations=1"], 20, {20}),
        (["training.epochs=2", "training.evaluations=4"], 20, {5, 10, 15, 20}),
        (["training.max_steps=2", "training.evaluations=9"], 2, {1, 2}),
    ],
)
def test_steps_and_evaluations_are_planned(
    tiny: Tiny, tmp_path: Path, settings: list[str], total: int, stops: set[int]
) -> None:
    assert planned_steps(tiny.config(tmp_path, *settings), steps_per_epoch=10) == (total, frozenset(stops))
