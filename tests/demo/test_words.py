"""Typical words of strata, against counts made by hand."""

from __future__ import annotations

import grpc
import pytest

from demo.words import typical_words, word_strata
from serving.client import Failure
from tests.demo.answers import answer, token


def test_a_word_has_the_mean_strata_of_its_tokens() -> None:
    tokens = [token("un", 0, 2, 1.0, 0.0), token("##do", 2, 4, 0.0, 1.0), token("!", 4, 5, 0.2, 0.8)]
    assert word_strata("undo!", tokens) == [("undo", (0.5, 0.5)), ("!", (0.2, 0.8))]


def test_what_was_cut_or_is_special_is_no_word() -> None:
    assert word_strata("a b", [token("[CLS]", 0, 0, 1.0, 0.0), token("a", 0, 1, 1.0, 0.0)]) == [
        ("a", (1.0, 0.0))
    ]


def test_a_stratum_is_told_by_what_leans_to_it_not_by_what_is_frequent() -> None:
    texts = ["the film", "the plot", "the bank"]
    strata = {"film": (0.9, 0.1), "plot": (0.8, 0.2), "bank": (0.05, 0.95), "the": (0.5, 0.5)}
    answers = []
    for text in texts:
        word = text.split()[1]
        tokens = (token("the", 0, 3, *strata["the"]), token(word, 4, 8, *strata[word]))
        answers.append((text, answer(tokens=tokens)))
    film, bank = typical_words(answers, strata=2, count=3)
    assert film[:2] == ("film", "plot")
    assert "the" not in film
    assert bank[0] == "bank"


def test_case_and_failures_do_not_count() -> None:
    failure = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "a bug")
    tokens = (token("Film", 0, 4, 1.0, 0.0), token("film", 5, 9, 1.0, 0.0), token("x", 10, 11, 0.0, 1.0))
    words = typical_words([("Film film x", answer(tokens=tokens)), ("y", failure)], strata=2)
    assert words == (("film",), ("x",))


@pytest.mark.parametrize("answers", [[], [("plain", answer(tokens=(token("plain", 0, 5),)))]])
def test_without_strata_there_are_no_words(answers: list[tuple[str, object]]) -> None:
    assert typical_words(answers, strata=2) == ((), ())  # type: ignore[arg-type]  # an answer, made by hand
