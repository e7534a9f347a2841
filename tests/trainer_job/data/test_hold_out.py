"""A domain left out of training: nothing of it to learn or choose from, all its test rows to be tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.data.corpora import rows
from tests.trainer_job.data.test_corpus import two
from trainer_job.config import DataConfig
from trainer_job.data import load_corpus

Make = Callable[..., DataConfig]


def test_a_held_out_domain_gives_test_rows_alone(make: Make) -> None:
    corpus = load_corpus(make(two(), hold_out="films"))
    assert corpus.domains == ("tweets",)
    for split in ("train", "validation", "test"):
        assert all(text.startswith("tweets") for text in corpus.splits[split]["text"][:])
    held = corpus.splits["held_out"]
    assert set(held["domain_id"][:]) == {-1}
    assert all(text.startswith("films test") for text in held["text"][:])
    assert corpus.held_out is not None
    assert corpus.held_out["domain"] == "films"
    assert corpus.held_out["counts"] == {"negative": 100, "positive": 100}
    assert corpus.held_out["label_ids"] == [0, 2]


def test_training_rows_that_stand_in_its_test_split_are_dropped(make: Make) -> None:
    domains = two()
    leak = domains["films"]["test"][0]
    domains["tweets"]["train"] = [*domains["tweets"]["train"], leak]
    corpus = load_corpus(make(domains, hold_out="films"))
    assert leak[0] not in corpus.splits["train"]["text"][:]
    assert any(pair["in_domain"] == "films" for pair in corpus.leaks["pairs"])


def test_totals_are_spread_over_the_domains_that_are_trained(make: Make) -> None:
    corpus = load_corpus(
        make({**two(), "shop": {"train": rows(200, prefix="shop")}}, hold_out="films", train_samples=100)
    )
    assert {name: sum(corpus.counts[name]["train"].values()) for name in corpus.domains} == {
        "tweets": 50,
        "shop": 50,
    }


def test_it_is_found_again_in_the_cache(make: Make, tmp_path: Path) -> None:
    config = make(two(), hold_out="films")
    first, again = (load_corpus(config, cache=tmp_path / "cache") for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert again.held_out == first.held_out
    assert len(again.splits["held_out"]) == 200
    assert load_corpus(make(two())).fingerprint != first.fingerprint


@pytest.mark.parametrize("name", ["books", None])
def test_only_one_of_several_domains_can_be_held_out(make: Make, name: str | None) -> None:
    domains: dict[str, Any] = two() if name else {"films": two()["films"]}
    with pytest.raises(ValueError, match="one of at least two domains"):
        make(domains, hold_out=name or "films")


def test_each_domain_gives_as_many_rows_as_asked_or_says_so(make: Make) -> None:
    corpus = load_corpus(make(two(), samples_per_domain=150))
    assert {name: record["requested"]["train"] for name, record in corpus.sources.items()} == {
        "films": 150,
        "tweets": 150,
    }
    assert sum(corpus.counts["films"]["train"].values()) == 150
    assert sum(corpus.counts["tweets"]["train"].values()) == 120  # of 200, 80 were cut for evaluation
    assert "train: asked for 150 rows, has 120" in corpus.sources["tweets"]["warnings"]


def test_a_filter_may_name_several_values(make: Make) -> None:
    config = make(two())
    domain = config.domains["films"].model_copy(update={"where": {"label": ("neg", "pos")}})
    both = config.model_copy(update={"domains": {"films": domain}})
    assert load_corpus(both).sources["films"]["filtered"]["train"] == 0
    none = domain.model_validate({**domain.model_dump(), "where": {"label": [0, 1]}})
    assert none.where == {"label": ("0", "1")}
