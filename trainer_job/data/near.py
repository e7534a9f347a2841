"""Near-duplicates: rows that differ from an evaluation text by a word or a few characters.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., ch. 3) proposes pairs, the true
Jaccard similarity of their character 5-grams decides, so what is reported is right and only recall is
approximate. The module does not know how leaks are dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer_job.data.leaks import Match, Place, Splits, comparisons, prepared, text_at
from trainer_job.data.rows import Prepared
from trainer_job.data.text import fold
from trainer_job.data.windows import window_hashes

SIMILARITY = 0.8
SHINGLE = 5  # folded characters
MIN_CHARACTERS = 24  # shorter texts are alike by chance
# 16 bands of 6 propose a pair of similarity s with chance 1-(1-s⁶)¹⁶: 0.99 at 0.8, 0.22 at 0.5, 0.01 at 0.3.
BANDS, ROWS = 16, 6
PERMUTATIONS = BANDS * ROWS
BATCH = 2048


def find_near(splits: Splits) -> list[Match]:
    """Rows of `comparisons` that share 0.8 or more of all 5-grams (Jaccard) with a row of a target split."""
    from datasketch import MinHashLSH

    against = dict(comparisons(splits))
    targets = list(dict.fromkeys(target for places in against.values() for target in places))
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
    for target in targets:
        for row, sketch in _sketches(prepared(splits, target)):
            index.insert((target, row), sketch, check_duplication=False)
    pairs: dict[tuple[Place, Place], list[tuple[int, int]]] = defaultdict(list)
    for source, places in against.items():
        part = prepared(splits, source)
        for row, sketch in _sketches(part):
            for target, partner in index.query(sketch):
                if target not in places:
                    continue
                if similarity(text_at(part, row), text_at(prepared(splits, target), partner)) >= SIMILARITY:
                    pairs[source, target].append((row, partner))
    return [
        Match(source, target, "near", *np.array(sorted(found), dtype=np.int64).T)
        for (source, target), found in pairs.items()
    ]


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of the sets of folded character 5-grams, from 0 to 1."""
    a, b = _shingles(fold(first)), _shingles(fold(second))
    return len(a & b) / max(1, len(a | b))


def _shingles(folded: str) -> set[str]:
    return {folded[start : start + SHINGLE] for start in range(len(folded) - SHINGLE + 1)}


def _sketches(part: Prepared) -> Iterator[tuple[int, Any]]:
    """The MinHash of each row that is long enough."""
    from datasketch import MinHash

    blank = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
    start = 0
    for batch in part.texts.select(part.rows).iter(batch_size=BATCH):
        folds = [fold(text) for text in batch["text"]]
        hashes, places = window_hashes(folds, SHINGLE)
        borders = np.searchsorted(places, np.arange(len(folds) + 1))
        for place, folded in enumerate(folds):
            if len(folded) >= MIN_CHARACTERS:
                sketch = blank.copy()
                shingles = hashes[borders[place] : borders[place + 1]] >> np.uint64(32)
                sketch.update_batch(shingles.tolist())
                yield start + place, sketch
        start += len(folds)
