"""Phrases inside evaluation texts, and evaluation texts inside longer rows, are found; stock phrases are
not."""

from __future__ import annotations

import tracemalloc

import numpy as np

from tests.trainer_job.data.corpora import prepare
from trainer_job.data.leaks import find_exact, guard
from trainer_job.data.rows import Prepared
from trainer_job.data.spans import _anchors, find_spans

SENTENCE = "The plot drags on and on , but the ending is n't half as bad as I had feared it would be ."
PHRASE = "the ending isn't half as bad as I had feared"
SHORT = "the plot drags on and on"
LONGER = f"I will say this. {SENTENCE} And that is all."


def find(train: list[str], test: list[str]) -> list[tuple[str, str, list[int], list[int]]]:
    splits: dict[str, dict[str, Prepared]] = {
        "a": {"train": prepare(train)},
        "b": {"train": prepare(["unrelated"])},
    }
    splits["b"]["test"] = prepare(test)
    return [
        (match.source[0], match.target[1], match.rows.tolist(), match.partners.tolist())
        for match in find_spans(splits)
    ]


def test_a_phrase_inside_an_evaluation_text_is_found_whatever_its_tokenising() -> None:
    assert find(["mine", PHRASE], ["else", SENTENCE]) == [("a", "test", [1], [1])]


def test_an_evaluation_text_inside_a_training_row_is_found() -> None:
    assert find([LONGER, "mine"], [SENTENCE]) == [("a", "test", [0], [0])]


def test_fewer_than_eight_words_do_not_count() -> None:
    assert find([SHORT], [SENTENCE]) == []


def test_eight_tiny_words_do_not_count() -> None:
    assert find(["a b c d e f g h"], ["a b c d e f g h i and so on until the alphabet ends"]) == []


def test_rows_that_only_begin_alike_are_kept() -> None:
    assert find([PHRASE + " yesterday"], [SENTENCE]) == []


def test_a_phrase_in_several_texts_counts_once_as_a_row() -> None:
    found = find([PHRASE], [SENTENCE, LONGER])
    assert found == [("a", "test", [0, 0], [0, 1])]


def test_the_guard_runs_it_on_what_the_exact_level_left() -> None:
    splits = {"a": {"train": prepare([SENTENCE, PHRASE, "clean"]), "test": prepare([SENTENCE])}}
    kept, report = guard(splits, [find_exact, find_spans], keep=False)
    assert len(kept["a"]["train"]) == 1
    assert sorted((pair["kind"], pair["dropped"]) for pair in report["pairs"]) == [("exact", 1), ("span", 1)]


def test_validation_is_held_against_test_but_not_against_train() -> None:
    splits = {"a": {"train": prepare(["x"]), "validation": prepare([PHRASE]), "test": prepare([SENTENCE])}}
    (match,) = find_spans(splits)
    assert (match.source, match.target) == (("a", "validation"), ("a", "test"))


def test_anchors_take_a_few_bytes_a_row_and_not_their_hashing() -> None:
    count = 16_000
    part = prepare(f"{place:09d} is the number that begins a row of many words" for place in range(count))
    tracemalloc.start()
    rows, hashes = _anchors(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.tolist() == list(range(count))
    assert len(np.unique(hashes)) == count
    assert peak < 400 * count  # a batch's own megabytes included; all rows at once take 1,300 bytes each
