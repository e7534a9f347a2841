"""Near-duplicates: planted paraphrases with known edits measure recall and precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.trainer_job.data.corpora import prepare
from trainer_job.data.near import find_near, similarity

LETTERS = list("abcdefghijklmnopqrstuvwxyz")
LENGTH = 40  # words of a text
Words = list[str]
Edit = Callable[[Words, np.random.Generator], Words]


def word(rng: np.random.Generator) -> str:
    """Made up, so that two texts share what was planted and nothing else."""
    return "".join(rng.choice(LETTERS, rng.integers(4, 9)))


def sentence(rng: np.random.Generator) -> Words:
    return [word(rng) for _ in range(LENGTH)]


def substituted(count: int) -> Edit:
    def edit(words: Words, rng: np.random.Generator) -> Words:
        places = set(rng.choice(len(words), count, replace=False).tolist())
        return [word(rng) if place in places else kept for place, kept in enumerate(words)]

    return edit


def deleted(words: Words, rng: np.random.Generator) -> Words:
    places = set(rng.choice(len(words), 2, replace=False).tolist())
    return [kept for place, kept in enumerate(words) if place not in places]


def inserted(words: Words, rng: np.random.Generator) -> Words:
    first, second = sorted(rng.choice(len(words), 2, replace=False).tolist())
    return [*words[:first], word(rng), *words[first:second], word(rng), *words[second:]]


def reordered(words: Words, rng: np.random.Generator) -> Words:
    place = int(rng.integers(len(words) - 1))
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def half_kept(words: Words, rng: np.random.Generator) -> Words:
    return [*words[: LENGTH // 2], *sentence(rng)[LENGTH // 2 :]]


def shuffled(words: Words, rng: np.random.Generator) -> Words:
    return [words[place] for place in rng.permutation(len(words))]


# What is a near-duplicate follows from the edits: of 40 words each touches at most two, some 20 of 240
# 5-grams (0.8 is lost at 27); what differs has lost 80 and more.
NEAR: dict[str, Edit] = {
    "one word": substituted(1),
    "two words": substituted(2),
    "deleted": deleted,
    "inserted": inserted,
    "reordered": reordered,
}
DIFFERENT: dict[str, Edit] = {"eight words": substituted(8), "half kept": half_kept, "shuffled": shuffled}
EACH = 40


def test_similarity_is_jaccard_of_five_grams() -> None:
    assert similarity("abcdefg", "ABC, defg!") == pytest.approx(1.0)
    assert similarity("abcdef", "abcdeg") == pytest.approx(1 / 3)  # abcde | bcdef, bcdeg
    assert similarity("abc", "abc") == pytest.approx(0.0)  # too short to say


def test_planted_paraphrases_are_found_and_near_but_different_texts_are_not() -> None:
    rng = np.random.default_rng(7)
    plan = [kind for kind in (*NEAR, *DIFFERENT) for _ in range(EACH)]
    test = [sentence(rng) for _ in plan]
    train = [{**NEAR, **DIFFERENT}[kind](words, rng) for kind, words in zip(plan, test, strict=True)]
    clean = [sentence(rng) for _ in range(200)]
    texts = [" ".join(words) for words in (*train, *clean)]
    (match,) = find_near({"a": {"train": prepare(texts), "test": prepare(" ".join(words) for words in test)}})
    assert all(row == partner for row, partner in zip(match.rows, match.partners, strict=True))
    found = set(match.rows.tolist())
    assert {place for place in found if place >= len(plan) or plan[place] in DIFFERENT} == set()
    for kind in NEAR:
        planted = {place for place, name in enumerate(plan) if name == kind}
        assert len(found & planted) / EACH >= 0.95, kind
    assert len(found) / (EACH * len(NEAR)) >= 0.98


def test_texts_shorter_than_24_characters_are_left_alone() -> None:
    assert (
        find_near({"a": {"train": prepare(["thanks so much!!"]), "test": prepare(["Thanks so much"])}}) == []
    )
