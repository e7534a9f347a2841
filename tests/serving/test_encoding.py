"""Texts become the tokens that training saw; cutting keeps what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.encoding import TokenizerEncoder
from serving.errors import EmptyText, TextTooLong
from serving.types import Truncation
from stratified_models.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LONG = " ".join(["good"] * 4 + ["bad"] * 4 + ["film"] * 4)


def encoder(max_tokens: int = 8) -> TokenizerEncoder:
    backend = type(TOKENIZER.backend_tokenizer).from_str(TOKENIZER.backend_tokenizer.to_str())
    return TokenizerEncoder(backend, max_tokens=max_tokens, special_ids=TOKENIZER.all_special_ids)


@given(st.text(min_size=1, max_size=80))
@settings(deadline=None, max_examples=60)
def test_tokens_are_those_of_transformers(text: str) -> None:
    expected = TOKENIZER(text)["input_ids"]
    if len(expected) == 2:
        with pytest.raises(EmptyText):
            encoder(512).encode(text, Truncation.HEAD)
        return
    found = encoder(512).encode(text, Truncation.HEAD)
    assert list(found.ids) == expected
    assert found.original_count == len(expected)
    assert not found.truncated


@pytest.mark.parametrize(
    ("mode", "words"),
    [(Truncation.HEAD, "good good good good bad bad"), (Truncation.TAIL, "bad bad film film film film"),
     (Truncation.HEAD_TAIL, "good good good film film film")],
)  # fmt: skip
def test_cutting_keeps_the_asked_part_and_the_special_tokens(mode: Truncation, words: str) -> None:
    found = encoder().encode(LONG, mode)
    assert found.pieces == ("[CLS]", *words.split(), "[SEP]")
    assert found.content == (False, *[True] * 6, False)
    assert (found.original_count, found.truncated) == (14, True)
    assert len(found.ids) == len(found.spans) == 8
    for piece, (start, end) in zip(found.pieces[1:-1], found.spans[1:-1], strict=True):
        assert LONG[start:end] == piece


def test_an_odd_token_goes_to_the_head() -> None:
    assert encoder(7).encode(LONG, Truncation.HEAD_TAIL).pieces[1:-1] == (
        "good",
        "good",
        "good",
        "film",
        "film",
    )


def test_reject_says_how_long_the_text_is_and_what_to_do() -> None:
    with pytest.raises(
        TextTooLong, match=r"14 tokens, above this model's 8; shorten it, or allow HEAD"
    ) as caught:
        encoder().encode(LONG, Truncation.REJECT)
    assert caught.value.field == "text"


@pytest.mark.parametrize("mode", list(Truncation))
def test_a_text_that_fits_exactly_is_left_alone(mode: Truncation) -> None:
    assert not encoder().encode("good good good bad bad bad", mode).truncated


def test_spans_count_code_points() -> None:
    found = encoder(16).encode("🙂 good", Truncation.HEAD)
    assert found.spans[-2] == (2, 6)


def test_head_truncation_is_that_of_transformers() -> None:
    expected = TOKENIZER(LONG, truncation=True, max_length=8)["input_ids"]
    assert list(encoder().encode(LONG, Truncation.HEAD).ids) == expected
