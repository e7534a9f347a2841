"""Near-duplicates: planted paraphrases with known edits measure recall and precision."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer_job.data.corpora import prepare
from trainer_job.data.near import find_near, similarity

WORDS = [
    "the",
    "film",
    "story",
    "acting",
    "scene",
    "music",
    "quite",
    "rather",
    "truly",
    "never",
    "always",
    "again",
    "perhaps",
    "someone",
    "nothing",
    "wonder",
    "dreadful",
    "bright",
    "hollow",
    "gentle",
    "clumsy",
    "patient",
    "ending",
    "middle",
    "opening",
    "camera",
    "script",
    "joke",
    "tear",
    "heart",
    "moment",
    "actor",
    "scenery",
]


def sentences(rng: np.random.Generator, count: int, length: int) -> list[str]:
    return [" ".join(rng.choice(WORDS, length)) + f" {rng.integers(1_000_000)}" for _ in range(count)]


def edited(text: str, rng: np.random.Generator, edits: int) -> str:
    words = text.split()
    for place in rng.choice(len(words) - 1, edits, replace=False):
        words[place] = "changed" if rng.random() < 0.5 else words[place][::-1]
    return " ".join(words)


def test_similarity_is_jaccard_of_five_grams() -> None:
    assert similarity("abcdefg", "ABC, defg!") == pytest.approx(1.0)
    assert similarity("abcdef", "abcdeg") == pytest.approx(1 / 3)  # abcde | bcdef, bcdeg
    assert similarity("abc", "abc") == pytest.approx(0.0)  # too short to say


def test_planted_paraphrases_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(7)
    test = sentences(rng, 150, 25)
    planted = [edited(text, rng, edits) for text, edits in zip(test, [1] * 75 + [2] * 75, strict=True)]
    clean = sentences(rng, 300, 25)
    truth = {place for place, text in enumerate(planted) if similarity(text, test[place]) >= 0.8}
    (match,) = find_near({"a": {"train": prepare([*planted, *clean]), "test": prepare(test)}})
    found = set(match.rows.tolist())
    assert len(truth) > 70  # one edit in 25 words leaves a similarity above 0.8, two often do
    assert len(found & truth) / len(truth) >= 0.98
    assert found <= truth  # the true similarity decides, so precision is 1
    assert all(row == partner for row, partner in zip(match.rows, match.partners, strict=True))


def test_texts_shorter_than_24_characters_are_left_alone() -> None:
    assert (
        find_near({"a": {"train": prepare(["thanks so much!!"]), "test": prepare(["Thanks so much"])}}) == []
    )
