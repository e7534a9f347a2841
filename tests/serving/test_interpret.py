"""Calibration, domain, strata and warnings, against numbers worked out by other means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.fake import fake_card
from serving.interpret import interpret, resolve_domain, saliency, softmax
from serving.types import AnswerWarning, DomainSource, Encoded, EngineOutput, Options

CARD = fake_card()
TEXT = Encoded(ids=(1, 9, 2), pieces=("[CLS]", "word", "[SEP]"), spans=((0, 0), (0, 4), (0, 0)),
               content=(False, True, False), original_count=3)  # fmt: skip
OUTPUT = EngineOutput(
    logits=(0.5, -1.0, 2.0), domain_logits=(0.2, 0.1), energy=0.4, occupancy=(0.25, 0.75),
    strata=((0.25, 0.75), (1.0, 0.0), (0.25, 0.75)),
)  # fmt: skip


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=6), st.floats(0.1, 10))
def test_softmax_is_that_of_torch(logits: list[float], temperature: float) -> None:
    expected = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, dim=0).tolist()
    assert softmax(logits, temperature=temperature) == pytest.approx(expected, abs=1e-12)


def test_saliency_is_the_divergence_from_the_mean() -> None:
    p, mean = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    expected = float(torch.distributions.kl_divergence(*map(torch.distributions.Categorical, (p, mean))))
    rows = [[0.7, 0.3], [0.4, 0.6]]
    assert saliency(rows, [0.4, 0.6]) == pytest.approx([expected, 0.0], rel=1e-5)
    assert saliency([[1.0, 0.0]], [0.5, 0.5]) == pytest.approx([math.log(2)])
    assert saliency([(), ()], ()) == [0.0, 0.0]


def test_the_answer_is_calibrated_and_sorted() -> None:
    answer = interpret(CARD, named="", encoded=TEXT, output=OUTPUT, options=Options())
    expected = softmax([2.0, 0.5, -1.0], temperature=CARD.temperature)
    assert (answer.label, answer.label_index) == ("positive", 2)
    assert [name for name, _ in answer.scores] == ["positive", "negative", "neutral"]
    assert [score for _, score in answer.scores] == pytest.approx(expected)
    assert answer.score == answer.scores[0][1]
    assert (answer.logits, answer.tokens, answer.warnings, answer.timings) == ((), (), (), None)


def test_top_k_and_logits() -> None:
    answer = interpret(CARD, named="", encoded=TEXT, output=OUTPUT, options=Options(top_k=1, raw_logits=True))
    assert len(answer.scores) == 1
    assert answer.logits == OUTPUT.logits


@pytest.mark.parametrize(
    ("named", "index", "source", "domain"),
    [("tweets", 1, DomainSource.GIVEN, "tweets"), ("", -1, DomainSource.INFERRED, "imdb"),
     ("mars", -1, DomainSource.FALLBACK, "imdb")],
)  # fmt: skip
def test_the_domain_is_given_inferred_or_fallen_back(
    named: str, index: int, source: DomainSource, domain: str
) -> None:
    assert resolve_domain(CARD, named) == (index, source)
    answer = interpret(CARD, named=named, encoded=TEXT, output=OUTPUT, options=Options())
    assert (answer.domain, answer.domain_source) == (domain, source)
    assert [name for name, _ in answer.domain_scores] == ["imdb", "tweets"]
    assert sum(score for _, score in answer.domain_scores) == pytest.approx(1)
    assert (AnswerWarning.UNKNOWN_DOMAIN in answer.warnings) is (source is DomainSource.FALLBACK)


@pytest.mark.parametrize(
    ("energy", "threshold", "strange"), [(0.6, 0.5, True), (0.5, 0.5, False), (9.0, None, False)]
)
def test_out_of_domain_is_above_the_models_own_threshold(
    energy: float, threshold: float | None, strange: bool
) -> None:
    card, output = replace(CARD, out_of_domain_threshold=threshold), replace(OUTPUT, energy=energy)
    answer = interpret(card, named="", encoded=TEXT, output=output, options=Options())
    assert (answer.out_of_domain, answer.out_of_domain_score) == (strange, energy)
    assert (AnswerWarning.OUT_OF_DOMAIN in answer.warnings) is strange


def test_a_label_that_the_given_domain_never_had_is_a_warning() -> None:
    neutral = replace(OUTPUT, logits=(0.0, 5.0, 0.0))
    for named, expected in (("imdb", True), ("tweets", False), ("", False)):
        answer = interpret(CARD, named=named, encoded=TEXT, output=neutral, options=Options())
        assert (AnswerWarning.LABEL_OUTSIDE_DOMAIN in answer.warnings) is expected


def test_a_cut_text_says_so() -> None:
    answer = interpret(
        CARD, named="", encoded=replace(TEXT, original_count=9), output=OUTPUT, options=Options()
    )
    assert answer.truncated
    assert answer.warnings == (AnswerWarning.TRUNCATED,)
    assert (answer.token_count, answer.original_token_count) == (3, 9)


def test_explain_gives_each_token_its_strata_and_saliency() -> None:
    answer = interpret(CARD, named="", encoded=TEXT, output=OUTPUT, options=Options(explain=True))
    assert [token.text for token in answer.tokens] == ["[CLS]", "word", "[SEP]"]
    word = answer.tokens[1]
    assert (word.start, word.end, word.strata) == (0, 4, (1.0, 0.0))
    assert word.saliency == pytest.approx(math.log(4))
    assert answer.tokens[0].saliency == 0.0


def test_explain_without_strata_gives_tokens_and_a_warning() -> None:
    output = replace(OUTPUT, occupancy=(), strata=())
    answer = interpret(
        replace(CARD, strata=0), named="", encoded=TEXT, output=output, options=Options(explain=True)
    )
    assert answer.warnings == (AnswerWarning.NO_STRATA,)
    assert [(token.strata, token.saliency) for token in answer.tokens] == [((), 0.0)] * 3


def test_a_model_without_domains_names_none() -> None:
    answer = interpret(
        replace(CARD, domains=()),
        named="",
        encoded=TEXT,
        output=replace(OUTPUT, domain_logits=()),
        options=Options(),
    )
    assert (answer.domain, answer.domain_scores) == ("", ())
