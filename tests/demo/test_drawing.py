"""Answers as HTML: everything that an answer says is there, and nothing that a text says becomes markup."""

from __future__ import annotations

import re

import grpc
import pytest

from demo import drawing
from demo.asking import Reply
from serving.client import Failure
from serving.types import AnswerWarning, DomainSource
from tests.demo.answers import TEXT, answer


def drawn(words: drawing.Words = (), **values: object) -> str:
    return drawing.answers(TEXT, [Reply("moe", answer(**values), 0.0123)], {"moe": words}, {})


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_everything_that_an_answer_says_is_there() -> None:
    told = plain(drawn(words=(("plots", "films"), ())))
    for part in (
        "negative 75%",
        "negative 0.750",
        "positive 0.250",
        "Read as imdb , inferred",
        "tweets 0.400",
    ):
        assert part in told
    assert "Not out of domain (score -1.25)" in told
    assert "0 70% plots, films 1 30% –" in told
    assert "12 ms as seen from here; in the service 6.5 ms" in told
    assert "a batch of 3 texts, 48 tokens. Model moe 7, abababababab" in told


def test_texts_never_become_markup() -> None:
    assert "<b>on</b>" not in drawn()
    assert "&lt;b&gt;on&lt;/b&gt;" in drawn()
    assert "<i>" not in drawing.table(["<i>"], [["<i>"]]) + drawing.problem("<i>") + drawing.notice("<i>")
    assert 'data-text="&quot;&gt;&lt;i&gt;"' in drawing.examples([("<i>", '"><i>')])


def test_tokens_have_the_colour_and_number_of_their_strongest_stratum() -> None:
    html = drawn()
    assert html.count('class="token"') == 2 + 2  # two tokens, two lines of the legend
    assert re.search(r'title="stratum 1: 80%; saliency 0.250"><sub>1</sub>drag</span>', html)


def test_a_number_is_not_repeated_while_the_stratum_stays() -> None:
    first, plots, drag, last = answer().tokens
    same = (first, plots, type(drag)(drag.text, drag.start, drag.end, plots.strata, 0), last)
    assert drawn(tokens=same).count("<sub>0</sub>") == 1


def test_what_was_cut_is_struck_out_and_counted() -> None:
    html = drawn(original_token_count=9)
    assert "<del> &lt;b&gt;on&lt;/b&gt;</del>" in html
    assert "Cut: 4 of 9 tokens were read." in plain(html)
    assert "<del>" not in drawn()


def test_what_was_cut_in_the_middle_is_struck_out_too() -> None:
    first, _, drag, last = answer().tokens
    html = drawn(tokens=(first, drag, last), original_token_count=9)
    assert html.index("<del>Plots </del>") < html.index("drag")


def test_flags_and_warnings_are_in_words() -> None:
    told = plain(
        drawn(
            out_of_domain=True,
            domain_source=DomainSource.FALLBACK,
            warnings=(AnswerWarning.OUT_OF_DOMAIN, AnswerWarning.LABEL_OUTSIDE_DOMAIN),
        )
    )
    assert "Out of domain: unlike the training data" in told
    assert "unknown to this model" in told
    assert "never had this label" in told


def test_a_variant_without_strata_shows_the_text_without_colours() -> None:
    first, plots, drag, last = (type(t)(t.text, t.start, t.end, (), 0) for t in answer().tokens)
    html = drawn(strata=(), tokens=(first, plots, drag, last), timings=None)
    assert 'class="token"' not in html
    assert "legend" not in html
    assert "Plots drag" in html
    assert "12 ms. Model moe" in html


def test_one_that_failed_says_so_beside_the_others() -> None:
    failure = Failure(grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_LOADED", "not loaded")
    html = drawing.answers(
        TEXT, [Reply("moe", answer(), 0.1), Reply("none", failure, 0.1)], {}, {"none": "It is not loaded."}
    )
    assert 'role="alert">It is not loaded.' in html
    assert html.count("<section") == 2


@pytest.mark.parametrize("strata", [1, 2, 3, 4, 6, 8, 9, 64])
def test_every_stratum_has_a_hue_of_its_own(strata: int) -> None:
    assert len({drawing.colour(k, strata) for k in range(strata)}) == strata


def test_progress_is_said_and_drawn() -> None:
    html = drawing.progress(250, 1000, 1234.5)
    assert 'max="1000" value="250"' in html
    assert "250 of 1,000 rows, 25 %, 1,234 a second" in html
    assert "0 of 0 rows, 0 %" in drawing.progress(0, 0, 0)


def test_long_cells_are_cut() -> None:
    assert "a…</td>" in drawing.table(["x"], [["a" * 500]])
