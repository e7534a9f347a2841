"""There and back again, for whatever hypothesis makes up."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.stratified.v1 import sentiment_pb2
from serving.errors import InvalidRequest
from serving.rpc import converters
from serving.types import (
    AnswerWarning,
    Classification,
    DomainSource,
    Item,
    ModelVersion,
    Options,
    StreamOrder,
    Timings,
    TokenStrata,
    Truncation,
)

share = st.floats(0, 1, width=32)
shares = st.lists(share, max_size=3).map(tuple)
number = st.integers(0, 2**31)
text = st.text(max_size=8)
ranked = st.lists(st.tuples(text, share), max_size=3).map(tuple)
seconds = st.integers(0, 10**12).map(lambda nanos: nanos / 1e9)

tokens = st.builds(TokenStrata, text=text, start=number, end=number, strata=shares, saliency=share)
answers = st.builds(
    Classification,
    label=text,
    label_index=number,
    score=share,
    scores=ranked,
    domain=text,
    domain_source=st.sampled_from(DomainSource),
    domain_scores=ranked,
    out_of_domain_score=st.floats(-100, 100, width=32),
    out_of_domain=st.booleans(),
    strata=shares,
    token_count=number,
    original_token_count=number,
    model=st.builds(ModelVersion, name=text, version=text, sha256=text),
    logits=shares,
    tokens=st.lists(tokens, max_size=2).map(tuple),
    warnings=st.lists(st.sampled_from(AnswerWarning)).map(tuple),
    timings=st.none()
    | st.builds(
        Timings, tokenize=seconds, queue=seconds, inference=seconds, total=seconds,
        batch_items=number, batch_tokens=number,
    ),
)  # fmt: skip
options = st.builds(
    Options,
    top_k=number,
    raw_logits=st.booleans(),
    truncation=st.none() | st.sampled_from(Truncation),
    explain=st.booleans(),
    timings=st.booleans(),
    strict_domain=st.none() | st.booleans(),
)


@given(answers)
@settings(deadline=None)
def test_an_answer_survives_the_wire(answer: Classification) -> None:
    data = converters.classification_to_wire(answer).SerializeToString()
    back = converters.classification_from_wire(sentiment_pb2.Classification.FromString(data))
    if answer.timings is not None:
        assert back.timings is not None
        for field in fields(Timings):
            assert getattr(back.timings, field.name) == pytest.approx(
                getattr(answer.timings, field.name), abs=1e-9
            )
    assert replace(back, timings=None) == replace(answer, timings=None)


@given(options)
def test_options_survive_the_wire(value: Options) -> None:
    assert converters.options_from_wire(converters.options_to_wire(value)) == value


@given(st.builds(Item, text=text, domain=text, id=text))
def test_an_item_survives_the_wire(item: Item) -> None:
    assert converters.item_from_wire(converters.item_to_wire(item)) == item


def test_a_single_request_is_an_item_without_id() -> None:
    assert converters.item_from_wire(sentiment_pb2.ClassifyRequest(text="a", domain="b")) == Item(
        "a", "b", ""
    )


@pytest.mark.parametrize("kind", list(converters.WIRE))
def test_every_member_has_its_number_and_every_number_its_member(kind: type[Enum]) -> None:
    wire: Any = converters.WIRE[kind]
    assert {converters.enum_to_wire(member) for member in kind} == set(wire.values()) - {0}


def test_a_number_of_a_later_release_is_refused_in_requests() -> None:
    with pytest.raises(
        InvalidRequest, match=r"options.truncation 9 is unknown to this release; use 0 to 4"
    ) as caught:
        converters.enum_from_wire(Truncation, 9, field="options.truncation")
    assert caught.value.field == "options.truncation"


def test_a_warning_of_a_later_release_is_left_out_of_answers() -> None:
    message = sentiment_pb2.Classification(warnings=[1, 99])  # type: ignore[list-item]  # as a newer server would send
    assert converters.classification_from_wire(message).warnings == (AnswerWarning.TRUNCATED,)


def test_nothing_said_is_none() -> None:
    assert converters.enum_from_wire(StreamOrder, 0) is None
    assert converters.enum_to_wire(None) == 0
