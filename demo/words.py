"""Which words a stratum holds, read off explained answers; it knows no service and draws nothing.

A word's strata are the mean over its tokens. Words are ranked for a stratum by s·log(p(k|w) / p(k)): s is
how much of the word lies there in all texts, p(k|w) its share, p(k) that of all words. The ratio keeps out
what is frequent everywhere, the sum what was seen once.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from serving.client import Answer
from serving.types import Classification, TokenStrata

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")


def typical_words(
    answers: Iterable[tuple[str, Answer]], *, strata: int, count: int = 6
) -> tuple[tuple[str, ...], ...]:
    """For each of `strata` the `count` words that are most its own; fewer where nothing leans towards it."""
    held: dict[str, list[float]] = defaultdict(lambda: [0.0] * strata)
    for text, answer in answers:
        if isinstance(answer, Classification):
            for word, shares in word_strata(text, answer.tokens):
                if len(shares) == strata:
                    held[word.lower()] = [a + b for a, b in zip(held[word.lower()], shares, strict=True)]
    totals = [sum(shares[k] for shares in held.values()) for k in range(strata)]
    whole = sum(totals)
    ranked: list[tuple[str, ...]] = []
    for k in range(strata):
        lean = {word: _lean(shares, k, totals[k] / whole) for word, shares in held.items() if shares[k] > 0}
        order = sorted(lean, key=lambda word: (-lean[word], word))
        ranked.append(tuple(word for word in order[:count] if lean[word] > 0))
    return tuple(ranked)


def _lean(shares: Sequence[float], k: int, expected: float) -> float:
    """How much a word leans to stratum `k`, of which `expected` is the share of all words."""
    return shares[k] * math.log(shares[k] / sum(shares) / expected)


def word_strata(text: str, tokens: Sequence[TokenStrata]) -> list[tuple[str, tuple[float, ...]]]:
    """Each word of `text` that the model read, with the mean strata (K,) of its tokens."""
    found = []
    for match in WORD.finditer(text):
        inside = [
            token.strata
            for token in tokens
            if token.strata and token.start < match.end() and token.end > match.start()
        ]
        if inside:
            mean = tuple(sum(shares) / len(inside) for shares in zip(*inside, strict=True))
            found.append((match.group(), mean))
    return found
