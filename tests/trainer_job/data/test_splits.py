"""Cutting splits: stratified to a row, groups never torn, nothing lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_job.data.splits import cut

FRACTIONS = {"validation": 0.15, "test": 0.25}


def test_rows_are_cut_by_label() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int8), [100, 40, 20])
    parts = cut(labels, None, FRACTIONS, rng=np.random.default_rng(0))
    assert {name: np.bincount(labels[rows]).tolist() for name, rows in parts.items()} == {
        "train": [60, 24, 12],
        "validation": [15, 6, 3],
        "test": [25, 10, 5],
    }


@settings(max_examples=40)
@given(
    groups=st.lists(st.integers(0, 12), min_size=8, max_size=80),
    seed=st.integers(0, 9),
    grouped=st.booleans(),
)
def test_every_row_goes_to_one_split_and_groups_stay_whole(
    groups: list[int], seed: int, grouped: bool
) -> None:
    ids = np.array(groups)
    labels = (np.arange(len(ids)) % 2).astype(np.int8)
    parts = cut(labels, ids if grouped else None, FRACTIONS, rng=np.random.default_rng(seed))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(ids)))
    if grouped:
        homes = [set(ids[rows].tolist()) for rows in parts.values()]
        assert sum(len(home) for home in homes) == len(set(groups))


def test_grouped_cut_keeps_shares_of_labels() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(300), rng.integers(1, 25, 300))
    labels = rng.choice(3, len(groups), p=[0.3, 0.5, 0.2]).astype(np.int8)
    parts = cut(labels, groups, FRACTIONS, rng=rng)
    whole = np.bincount(labels)
    for name, share in (("train", 0.6), ("validation", 0.15), ("test", 0.25)):
        got = np.bincount(labels[parts[name]]) / whole
        assert np.abs(got - share).max() < 0.02, (name, got)


def test_a_cut_depends_on_its_generator_alone() -> None:
    labels = np.repeat(np.arange(2, dtype=np.int8), 50)
    first = cut(labels, None, FRACTIONS, rng=np.random.default_rng(1))
    again = cut(labels, None, FRACTIONS, rng=np.random.default_rng(1))
    other = cut(labels, None, FRACTIONS, rng=np.random.default_rng(2))
    assert first["test"].tolist() == again["test"].tolist() != other["test"].tolist()
