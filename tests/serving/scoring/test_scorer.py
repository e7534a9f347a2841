"""Answers without a server: the service's own, in order, the same bits for the same call."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.calls import Failure
from serving.engines.fake import FakeSource
from serving.errors import BadSettings, BadStore, InvalidRequest
from serving.scoring import Scorer
from serving.types import Classification, DomainSource, Options
from tests.serving import bundles


@pytest.fixture
def fake() -> FakeSource:
    return FakeSource("none")


def test_every_text_has_its_answer_in_order(fake: FakeSource) -> None:
    texts = ["good film", " ", "bad " * 3, "", "x" * 70_000]
    with Scorer("unused", source=fake) as scorer:
        answers = scorer.score(texts, ["imdb", "", "mars", "", ""])
        assert scorer.score([]) == []
        assert scorer.labels == ("negative", "neutral", "positive")
        alone = [scorer.score([text])[0] for text in texts]
    reasons = [answer.reason if isinstance(answer, Failure) else "" for answer in answers]
    assert reasons == ["", "EMPTY_TEXT", "", "EMPTY_TEXT", "TEXT_TOO_LONG"]
    assert isinstance(answers[0], Classification)
    assert answers[0].domain_source is DomainSource.GIVEN
    assert answers[1] == alone[1]


def test_a_table_has_the_columns_of_the_files(fake: FakeSource) -> None:
    with Scorer("unused", source=fake) as scorer:
        table = scorer.table(["good", " "])
        assert tuple(table) == scorer.columns
    assert table["label"][0] in {"negative", "neutral", "positive"}
    assert (table["label"][1], table["error_reason"]) == (None, [None, "EMPTY_TEXT"])
    assert table["score"][0] == max(
        table[f"score_{label}"][0] for label in ("negative", "neutral", "positive")
    )


def test_all_texts_of_a_call_are_known_before_the_first_batch(fake: FakeSource) -> None:
    texts = [f"w{n} " * (1 + n % 5) for n in range(300)]
    with Scorer("unused", source=fake, batch_tokens=64) as scorer:
        first = scorer.score(texts)
        batches = list(fake.engines["none"].batches)
        assert scorer.score(texts) == first
        again = fake.engines["none"].batches[len(batches) :]
    assert again == batches
    assert all(len({len(ids) for ids in batch}) == 1 for batch in batches[:-10]), "likes ride together"


def test_a_crashed_engine_is_waited_for(fake: FakeSource) -> None:
    engine = fake.engines["none"]
    with Scorer("unused", source=fake, pause=0.3) as scorer:
        engine.die.set()
        scorer._loop.call_soon_threadsafe(scorer._loop.call_later, 0.1, engine.die.clear)
        assert isinstance(scorer.score(["good"])[0], Classification)


def test_options_that_no_text_can_have(fake: FakeSource) -> None:
    with Scorer("unused", source=fake) as scorer, pytest.raises(InvalidRequest, match="top_k 9"):
        scorer.score(["good"], options=Options(top_k=9))


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="is not a folder"):
        Scorer(tmp_path / "no")
    with pytest.raises(BadSettings, match="--engine 'x'"):
        Scorer(tmp_path, engine="x")


def test_a_real_bundle_answers_as_the_engine_alone() -> None:
    with Scorer(bundles.results(), engine="torch", model="none") as scorer:
        answers = scorer.score(["good film", "bad plot and a long one"])
        assert scorer.made["engine"] == "torch"
        assert all(isinstance(answer, Classification) for answer in answers)
        assert scorer.score(["good film", "bad plot and a long one"]) == answers
