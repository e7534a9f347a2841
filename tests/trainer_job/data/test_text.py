"""Cleaning changes little; keys are equal exactly for texts that count as the same."""

from __future__ import annotations

import pytest

from trainer_job.data.text import clean, fold, text_key, words


def test_clean_removes_line_breaks_and_runs_of_space_only() -> None:
    assert clean("  Good!<br /><br />Very\tGOOD\n :) <b>x</b> &amp; @me http://t.co ") == (
        "Good! Very GOOD :) <b>x</b> &amp; @me http://t.co"
    )


def test_clean_mends_mojibake_only_when_asked() -> None:
    assert clean("donâ€™t &amp; won't") == "donâ€™t &amp; won't"
    assert clean("donâ€™t &amp; won't", repair_mojibake=True) == "don't & won't"


def test_clean_joins_surrogate_pairs_and_replaces_lone_halves() -> None:
    assert clean("a\ud83d\ude00b") == "a😀b"
    assert clean("a\ud83d b").encode() == "a\ufffd b".encode()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("It isn't good.", "it is n't good ."),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("STRASSE", "straße"),
        ("`` quoted ''", '"quoted"'),
        ("snake_case", "snake case"),
    ],
)
def test_texts_that_differ_in_spelling_alone_have_one_key(first: str, second: str) -> None:
    assert fold(first) == fold(second)
    assert text_key(first) == text_key(second)


@pytest.mark.parametrize(
    ("first", "second"), [("9 ½ weeks", "912 weeks"), ("good", "goods"), (":)", ":("), ("résumé", "resume")]
)
def test_texts_that_differ_in_content_have_other_keys(first: str, second: str) -> None:
    assert text_key(first) != text_key(second)


def test_keys_are_the_same_on_every_machine() -> None:
    assert text_key("A small, kept value.") == text_key("a small kept value") == 1948535022182249760
    assert text_key("!!") != text_key("??")  # nothing is left when folded: keyed as they are


def test_words_are_folded_and_split_at_punctuation() -> None:
    assert words("Isn't it GREAT, 10/10?") == ["isn", "t", "it", "great", "10", "10"]
