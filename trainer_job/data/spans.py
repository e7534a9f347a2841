"""Long spans: training rows that stand inside an evaluation text, or hold one whole.

SST-2's training set, for one, is made of phrases of Rotten Tomatoes sentences. Texts are compared folded,
so that tokenising does not matter; the inner one must have 8 words and 24 folded characters, so that stock
phrases do not count. The module does not know how leaks are dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trainer_job.data.leaks import Match, Place, Splits, comparisons, text_at
from trainer_job.data.rows import Prepared
from trainer_job.data.text import fold, words
from trainer_job.data.windows import Hashes, Lookup, window_hashes

Ints = npt.NDArray[np.int64]

MIN_WORDS = 8
ANCHOR = 24  # folded characters: the first ones of an inner text, by which it is found
BATCH = 2048


def find_spans(splits: Splits) -> list[Match]:
    """Rows of `comparisons` that contain, or are contained in, a row of a target split."""
    every = dict(_places(splits))
    anchors = {place: _anchors(part) for place, part in every.items()}
    against = dict(comparisons(splits))
    seekers: dict[Place, list[Place]] = defaultdict(list)  # outer place → places whose rows may be inside
    for source, targets in against.items():
        for target in targets:
            seekers[target].append(source)
            seekers[source].append(target)
    pairs: dict[tuple[Place, Place], list[tuple[int, int]]] = defaultdict(list)
    for outer, inners in seekers.items():
        for inner, inner_row, outer_row in _contained(every, anchors, outer, list(dict.fromkeys(inners))):
            if outer in against.get(inner, ()):
                pairs[inner, outer].append((inner_row, outer_row))
            if inner in against.get(outer, ()):
                pairs[outer, inner].append((outer_row, inner_row))
    return [_match(source, target, found) for (source, target), found in pairs.items()]


def _places(splits: Splits) -> Iterator[tuple[Place, Prepared]]:
    for domain, parts in splits.items():
        for split, part in parts.items():
            yield (domain, split), part


def _batches(part: Prepared) -> Iterator[tuple[int, list[str]]]:
    """The first position and the texts of each batch of rows."""
    texts = part.texts.select(part.rows)
    start = 0
    for batch in texts.iter(batch_size=BATCH):
        yield start, list(batch["text"])
        start += len(batch["text"])


def _anchors(part: Prepared) -> tuple[Ints, Hashes]:
    """The rows long enough to count as a span, and the hash of the first characters of each.

    Hashed batch by batch: of a row 16 bytes are left, while hashing takes some hundred.
    """
    rows, hashes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.uint64)]
    for start, texts in _batches(part):
        heads: dict[int, str] = {}
        for place, text in enumerate(texts):
            folded = fold(text)
            if len(folded) >= ANCHOR and len(words(text)) >= MIN_WORDS:
                heads[start + place] = folded[:ANCHOR]
        found, places = window_hashes(list(heads.values()), ANCHOR)
        rows.append(np.fromiter(heads, dtype=np.int64, count=len(heads))[places])
        hashes.append(found)
    return np.concatenate(rows), np.concatenate(hashes)


def _contained(
    every: dict[Place, Prepared],
    anchors: dict[Place, tuple[Ints, Hashes]],
    outer: Place,
    inners: Sequence[Place],
) -> Iterator[tuple[Place, int, int]]:
    """(inner place, inner row, outer row) for each row of `inners` that stands inside a row of `outer`."""
    rows = np.concatenate([anchors[inner][0] for inner in inners])
    owner = np.repeat(np.arange(len(inners)), [len(anchors[inner][0]) for inner in inners])
    lookup = Lookup(np.concatenate([anchors[inner][1] for inner in inners]))

    @lru_cache(maxsize=100_000)
    def folded(candidate: int) -> str:
        return fold(text_at(every[inners[owner[candidate]]], int(rows[candidate])))

    for start, texts in _batches(every[outer]):
        folds = [fold(text) for text in texts]
        hashes, places = window_hashes(folds, ANCHOR)
        asked, found = lookup.matches(hashes)
        for place, candidate in np.unique(np.stack([places[asked], found], axis=1), axis=0).tolist():
            if folded(candidate) in folds[place]:
                yield inners[owner[candidate]], int(rows[candidate]), start + place


def _match(source: Place, target: Place, found: list[tuple[int, int]]) -> Match:
    rows, partners = np.array(sorted(set(found)), dtype=np.int64).T
    return Match(source, target, "span", rows, partners)
