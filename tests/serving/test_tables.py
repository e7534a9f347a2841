"""Answers as people read them."""

from __future__ import annotations

import io
from dataclasses import replace

import grpc

from serving.calls import Failure
from serving.tables import answers_table, strongest, tokens_table, write
from serving.types import AnswerWarning, Item, TokenStrata
from tests.serving.test_metrics import answer


def shown(*rows: object) -> str:
    stream = io.StringIO()
    write(stream, answers_table(rows))  # type: ignore[arg-type]  # pairs
    return stream.getvalue()


def test_a_row_holds_text_label_domain_and_warnings() -> None:
    given = replace(answer(), warnings=(AnswerWarning.TRUNCATED,))
    text = shown((Item("good [bold]film"), given))
    for part in ("good [bold]film", given.label, "imdb (given)", "TRUNCATED"):
        assert part in text


def test_a_long_text_is_shortened_and_an_error_is_shown() -> None:
    text = shown((Item("x" * 100), Failure(grpc.StatusCode.INTERNAL, "R", "it broke")))
    assert "x" * 59 + "…" in text
    assert "x" * 60 not in text
    assert "it broke" in text


def test_tokens_are_drawn_with_their_saliency() -> None:
    tokens = (TokenStrata("[CLS]", 0, 0, (), 0.0), TokenStrata("good", 0, 4, (0.9, 0.1), 0.5))
    stream = io.StringIO()
    write(stream, tokens_table(Item("good"), replace(answer(), tokens=tokens)))
    assert "0.500 ██████████" in stream.getvalue()
    flat = io.StringIO()
    write(flat, tokens_table(Item("y" * 99), replace(answer(), tokens=tokens[:1])))
    assert "█" not in flat.getvalue()


def test_the_strongest_strata_come_first() -> None:
    assert strongest((0.1, 0.6, 0.3), count=2) == "1: 0.60  2: 0.30"
    assert strongest(()) == ""
