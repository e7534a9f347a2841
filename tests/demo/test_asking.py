"""Questions to a real service, and what is said when none answers."""

from __future__ import annotations

import grpc
import pytest

from demo.asking import Asker, State
from serving.client import CallFailed, Failure
from serving.engines.fake import FakeSource, fake_card
from serving.types import Classification, Item
from tests.live import fake_service, free_port


def test_what_is_ready_and_what_the_default_knows(asker: Asker) -> None:
    state = asker.state()
    assert (state.ready, state.default, state.domains) == (("none", "routing"), "none", ("imdb", "tweets"))
    assert not state.problem


def test_variants_answer_side_by_side_in_the_order_asked(asker: Asker) -> None:
    replies = asker.classify("the plot drags", domain="imdb", models=["routing", "none"])
    assert [reply.model for reply in replies] == ["routing", "none"]
    for reply in replies:
        assert isinstance(reply.answer, Classification)
        assert reply.answer.model.name == reply.model
        assert reply.answer.timings is not None
        assert reply.answer.tokens
        assert reply.seconds > 0
    assert asker.classify("x", domain="", models=[]) == []


def test_an_error_is_a_reply(asker: Asker) -> None:
    (reply,) = asker.classify("x", domain="", models=["moe"])
    assert isinstance(reply.answer, Failure)
    assert "moe" in asker.explain(reply.answer)


def test_many_texts_with_their_strata(asker: Asker) -> None:
    pairs = asker.explained(["good", "bad"], "routing")
    assert [text for text, _ in pairs] == ["good", "bad"]
    assert all(isinstance(answer, Classification) and answer.tokens for _, answer in pairs)


def test_a_stream(asker: Asker) -> None:
    answers = list(asker.stream((Item(f"text {n}", id=str(n)) for n in range(100)), "none"))
    assert [identity for identity, _ in answers] == [str(n) for n in range(100)]


def test_a_service_that_is_down_is_said_and_comes_back() -> None:
    port = free_port()
    asker = Asker(f"127.0.0.1:{port}")
    assert f"No service answers at 127.0.0.1:{port}" in asker.state().problem
    assert asker.explained(["x"], "") == []
    with pytest.raises(CallFailed):
        list(asker.stream([Item("x")], ""))
    (reply,) = asker.classify("x", domain="", models=["none"])
    assert isinstance(reply.answer, Failure)
    with fake_service(FakeSource("none"), port=port):
        assert asker.state().ready == ("none",)
    asker.close()


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full"), "busy"),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "", ""), "too long"),
        (Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "a bug", request_id="r-7"), "a bug (request r-7)"),
        (Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING", "it stops"), "it stops"),
        (Failure(grpc.StatusCode.UNKNOWN, "", ""), "UNKNOWN"),
    ],
)
def test_failures_are_sentences(failure: Failure, told: str) -> None:
    assert told in Asker("127.0.0.1:1").explain(failure)


def test_beside_a_default_without_strata_stands_one_that_has_them() -> None:
    cards = {"none": fake_card("none", strata=0), "layers": fake_card("layers", strata=8)}
    assert State(("layers", "none"), default="none", cards=cards).first == ("none", "layers")
    assert State(("layers", "none"), default="layers", cards=cards).first == ("layers",)
    assert State(("none",), default="none", cards=cards).first == ("none",)
    assert State(("layers",), default="none", cards=cards).first == ("layers",)
    assert State().first == ()
