"""Baselines are fitted on the training rows alone and measured like a model."""

from __future__ import annotations

from typing import Any

import pytest

from trainer_job.baselines import majority, tfidf_logreg
from trainer_job.data import Corpus
from trainer_job.data.store import write_table

TYPES = {"text": "string", "label": "int64", "domain_id": "int64", "row_id": "int64"}


def corpus(train: list[tuple[str, int]], test: list[tuple[str, int]]) -> Corpus:
    def table(rows: list[tuple[str, int]]) -> Any:
        columns = {
            "text": [text for text, _ in rows],
            "label": [label for _, label in rows],
            "domain_id": [place % 2 for place in range(len(rows))],
            "row_id": list(range(len(rows))),
        }
        return write_table([columns], types=TYPES, path=None)

    return Corpus(
        splits={"train": table(train), "validation": table(test), "test": table(test)},
        labels=("negative", "neutral", "positive"),
        domains=("films", "tweets"),
        domain_labels=((0, 2), (0, 2)),
        counts={},
        sources={},
        leaks={},
        fingerprint="",
    )


@pytest.fixture
def plain() -> Corpus:
    train = [
        (f"it was {word} film {place}", label)
        for place in range(30)
        for word, label in (("bad", 0), ("good", 2))
    ]
    train.append(("a good one", 2))
    return corpus(train, [("bad", 0), ("so bad", 0), ("good", 2), ("very good", 2)])


def test_majority_says_the_most_frequent_training_label(plain: Corpus) -> None:
    found = majority(plain)
    assert found["test"]["confusion"] == [[0, 0, 2], [0, 0, 0], [0, 0, 2]]
    assert found["test"]["accuracy"] == pytest.approx(0.5)
    assert found["validation"]["nll"] == pytest.approx(0.693, abs=0.01)


def test_tfidf_learns_words_and_spreads_over_all_labels(plain: Corpus) -> None:
    found = tfidf_logreg(plain)
    assert found["test"]["accuracy"] == pytest.approx(1.0)
    assert set(found["test"]["per_domain"]) == {"films", "tweets"}
    assert found["test"]["neutral_share"] == 0  # no training row is neutral, yet the third class exists
    assert found["c"] in {0.3, 1.0, 3.0, 10.0, 30.0}


def test_tfidf_survives_words_that_never_repeat() -> None:
    tiny = corpus([("bad", 0), ("good", 2), ("dreadful", 0), ("fine", 2)], [("bad", 0), ("good", 2)])
    assert tfidf_logreg(tiny)["test"]["n"] == 2
