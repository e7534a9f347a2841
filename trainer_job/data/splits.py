"""Splits: cut validation and test out of train where a source has none; pure functions of labels and groups.

It does not know texts or domains. Rows never move between splits that the source itself has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def cut(
    labels: npt.NDArray[np.int8],
    groups: Ints | None,
    fractions: Mapping[str, float],
    *,
    rng: np.random.Generator,
) -> dict[str, Ints]:
    """Cut a train split, stratified by label and with groups whole.

    Args:
        labels: (n,) label ids.
        groups: (n,) group ids, or None when each row stands alone.
        fractions: split → its share of the rows; `train` keeps the rest.
        rng: decides which rows go where.

    Returns:
        Split → ascending positions, `train` first. Without groups each label's count is within one row of
        its share.
    """
    if groups is None:
        return _cut_rows(labels, fractions, rng)
    return _cut_groups(labels, groups, fractions, rng)


def _cut_rows(
    labels: npt.NDArray[np.int8], fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, Ints]:
    parts: dict[str, list[Ints]] = {name: [] for name in ("train", *fractions)}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for name, fraction in fractions.items():
            size = round(fraction * len(rows))
            parts[name].append(rows[start : start + size])
            start += size
        parts["train"].append(rows[start:])
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


def _cut_groups(
    labels: npt.NDArray[np.int8], groups: Ints, fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, Ints]:
    """Give each group, the largest first, to the split that its labels are most wanting in.

    A greedy form of iterative stratification (Sechidis et al. 2011).
    """
    names = ["train", *fractions]
    shares = np.array([1.0 - sum(fractions.values()), *fractions.values()])  # (S,)
    kinds, label_place = np.unique(labels, return_inverse=True)
    _, group_place = np.unique(groups, return_inverse=True)
    counts = np.zeros((group_place.max() + 1, len(kinds)))  # (G, L)
    np.add.at(counts, (group_place, label_place), 1.0)
    total = counts.sum(axis=0)  # (L,)
    wanted = shares[:, None] * total  # (S, L), counted down as groups arrive
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    home = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        need = (wanted / total) @ counts[group]  # (S,)
        home[group] = int(np.argmax(need / shares))
        wanted[home[group]] -= counts[group]
    split_of_row = home[group_place]
    return {name: np.flatnonzero(split_of_row == place) for place, name in enumerate(names)}
