"""Small texts and splits for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trainer_job.data.rows import Prepared
from trainer_job.data.store import write_table
from trainer_job.data.text import text_key


def rows(count: int, *, prefix: str, labels: tuple[str, ...] = ("neg", "pos")) -> list[tuple[str, str]]:
    """Distinct texts, sorted by label as real sources are."""
    return [
        (f"{prefix} row number {place} says {label}", label)
        for label in labels
        for place in range(count // len(labels))
    ]


def prepare(texts: Iterable[str], *, label: int = 0) -> Prepared:
    """A split as the guard sees it."""
    every = list(texts)
    return Prepared(
        write_table([{"text": every}], types={"text": "string"}, path=None),
        np.arange(len(every)),
        np.full(len(every), label, dtype=np.int8),
        np.array([text_key(text) for text in every], dtype=np.int64),
        None,
    )
