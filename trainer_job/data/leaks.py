"""The leak guard: training rows that also stand in an evaluation split, within a domain or across domains.

It does not know files or sampling. The first level compares whole texts by key; `spans` and `near` find
parts and near-duplicates among the rows that are left. Evaluation splits stay whole but for validation rows
that stand in a test split: validation chooses, so it must not have seen test either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer_job.data.rows import Prepared

Splits = Mapping[str, Mapping[str, Prepared]]  # domain → split → rows
Place = tuple[str, str]  # (domain, split)
Mask = npt.NDArray[np.bool_]
EXAMPLE_LENGTH = 200
AGAINST = {"train": ("validation", "test"), "validation": ("test",)}


@dataclass(frozen=True)
class Match:
    """Rows of one place that stand in another; row `rows[i]` matches row `partners[i]` there."""

    source: Place
    target: Place
    kind: str  # exact, span or near
    rows: npt.NDArray[np.int64]
    partners: npt.NDArray[np.int64]


Finder = Callable[[Splits], list[Match]]


def guard(
    splits: Splits, finders: Sequence[Finder], *, keep: bool
) -> tuple[dict[str, dict[str, Prepared]], dict[str, Any]]:
    """Drop what leaks, level by level; each later level sees only what the earlier ones left.

    Args:
        splits: domain → split → rows.
        finders: the levels, cheapest first.
        keep: report, but drop nothing.

    Returns:
        The cleaned splits, and the report: `found` and `dropped` (distinct rows; 0 with `keep`), `kept`,
        and `pairs`, each with its number of rows `dropped`, the number of evaluation `texts` that they met,
        and one example. A row that meets several splits counts in several pairs.
    """
    left = {domain: dict(parts) for domain, parts in splits.items()}
    pairs: list[dict[str, Any]] = []
    found = 0
    for find in finders:
        matches = find(left)
        pairs.extend(_describe(match, left) for match in matches)
        for (domain, split), mask in _masks(matches, left).items():
            found += int(mask.sum())
            left[domain][split] = left[domain][split].take(~mask)
    report = {
        "dropped": 0 if keep else found,
        "found": found,
        "kept": keep,
        "pairs": sorted(pairs, key=lambda pair: -pair["dropped"]),
    }
    return ({domain: dict(parts) for domain, parts in splits.items()} if keep else left), report


def find_exact(splits: Splits) -> list[Match]:
    """Rows whose folded text equals that of an evaluation row."""
    found = []
    for source, targets in comparisons(splits):
        key = prepared(splits, source).key
        pool = np.unique(np.concatenate([prepared(splits, target).key for target in targets]))
        suspects = np.flatnonzero(np.isin(key, pool))
        for target in targets:
            theirs, first = np.unique(prepared(splits, target).key, return_index=True)
            place = np.minimum(np.searchsorted(theirs, key[suspects]), len(theirs) - 1)
            hit = theirs[place] == key[suspects] if len(theirs) else np.zeros(len(suspects), dtype=bool)
            if hit.any():
                found.append(Match(source, target, "exact", suspects[hit], first[place[hit]]))
    return found


def comparisons(splits: Splits) -> Iterator[tuple[Place, list[Place]]]:
    """Each place whose rows may be dropped, with the places that they are held against."""
    for domain, parts in splits.items():
        for split in parts:
            targets = [
                (other, theirs)
                for other, rest in splits.items()
                for theirs in AGAINST.get(split, ())
                if theirs in rest
            ]
            if targets:
                yield (domain, split), targets


def prepared(splits: Splits, place: Place) -> Prepared:
    """The rows at a place."""
    return splits[place[0]][place[1]]


def one_of_each(part: Prepared) -> npt.NDArray[np.int64]:
    """Ascending positions of one row for each text of a split: the first with its commonest label."""
    order = np.lexsort((part.label, part.key))
    key, label = part.key[order], part.label[order]
    start = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]) | (label[1:] != label[:-1])])
    length = np.diff(np.r_[start, len(key)])
    first, of_key = order[start], key[start]
    best = np.lexsort((first, -length, of_key))
    leads = np.r_[True, of_key[best][1:] != of_key[best][:-1]]
    return np.sort(first[best][leads])


def conflicts(splits: Splits, labels: Sequence[str], *, examples: int = 20) -> dict[str, Any]:
    """Texts that carry different labels, in one domain or in several: how many, and the first few.

    Returns:
        `texts`, and `examples` of {text, labels: {label: rows}}.
    """
    parts = [
        (place, prepared(splits, place)) for place in ((d, s) for d, rest in splits.items() for s in rest)
    ]
    key = np.concatenate([part.key for _, part in parts])
    label = np.concatenate([part.label for _, part in parts]).astype(np.int64)
    order = np.lexsort((label, key))
    key, label = key[order], label[order]
    start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    end = np.r_[start[1:], len(key)]
    torn = label[start] != label[end - 1]  # sorted, so first and last differ if any do
    shown = []
    for begin, stop in list(zip(start[torn], end[torn], strict=True))[:examples]:
        names, counts = np.unique(label[begin:stop], return_counts=True)
        tally = {labels[name]: int(count) for name, count in zip(names, counts, strict=True)}
        shown.append({"text": _text_of(parts, int(key[begin])), "labels": tally})
    return {"texts": int(torn.sum()), "examples": shown}


def _text_of(parts: Sequence[tuple[Place, Prepared]], key: int) -> str:
    part = next(part for _, part in parts if (part.key == key).any())
    return text_at(part, int(np.argmax(part.key == key)))[:EXAMPLE_LENGTH]


def text_at(part: Prepared, position: int) -> str:
    """The text of one row."""
    return str(part.texts[int(part.rows[position])]["text"])


def _describe(match: Match, splits: Splits) -> dict[str, Any]:
    source, target = prepared(splits, match.source), prepared(splits, match.target)
    return {
        "from_domain": match.source[0],
        "from_split": match.source[1],
        "in_domain": match.target[0],
        "in_split": match.target[1],
        "kind": match.kind,
        "dropped": len(np.unique(match.rows)),
        "texts": len(np.unique(match.partners)),
        "example": text_at(source, int(match.rows[0]))[:EXAMPLE_LENGTH],
        "example_meets": text_at(target, int(match.partners[0]))[:EXAMPLE_LENGTH],
    }


def _masks(matches: Sequence[Match], splits: Splits) -> dict[Place, Mask]:
    masks: dict[Place, Mask] = {}
    for match in matches:
        empty = np.zeros(len(prepared(splits, match.source)), dtype=bool)
        masks.setdefault(match.source, empty)[match.rows] = True
    return masks
