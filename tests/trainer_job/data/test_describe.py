"""The account of a corpus names every count, warning and leak, and shows rows of every stratum."""

from __future__ import annotations

import io
from collections.abc import Callable

from tests.trainer_job.data.corpora import rows
from trainer_job.config import DataConfig
from trainer_job.data import load_corpus
from trainer_job.data.describe import print_corpus, word_lengths

Make = Callable[..., DataConfig]


def described(config: DataConfig, samples: int = 2) -> str:
    out = io.StringIO()
    print_corpus(load_corpus(config), out, samples=samples)
    return out.getvalue()


def test_everything_that_was_read_is_accounted_for(make: Make) -> None:
    films = {
        "train": [*rows(40, prefix="films"), ("Leaks, here.", "neg"), ("", "pos")],
        "test": [("leaks here", "neg")],
    }
    text = described(make({"films": films}))
    for expected in (
        "Rows by domain, split and label",
        "files films/train.jsonl",
        "Leaks: 1 rows stood in an evaluation split and were dropped",
        "films/train",
        "0 texts carry more than one label.",
        "note: films: train: 1 rows without text dropped",
        "note: films: test: no row is positive",
        "fingerprint",
    ):
        assert expected in text
    assert (
        text.count("films negative: films row number") == text.count("films positive: films row number") == 2
    )


def test_kept_leaks_are_called_kept(make: Make) -> None:
    films = {"train": [*rows(40, prefix="films"), ("leak", "neg")], "test": [("leak", "neg")]}
    assert "were kept" in described(make({"films": films}, keep_leaks=True), samples=0)


def test_lengths_are_in_words(make: Make) -> None:
    corpus = load_corpus(make({"films": {"train": rows(40, prefix="films")}}))
    assert word_lengths(corpus, "train") == {"films": [6, 6, 6, 6]}
