"""The texts to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.examples import EXAMPLES, KEPT, choose, read_examples
from demo.sheet import BadFile


def test_every_domain_has_some_and_one_is_long_enough_to_be_cut() -> None:
    assert all(len(texts) >= 5 for texts in EXAMPLES.values())
    assert max(len(text.split()) for texts in EXAMPLES.values() for text in texts) > 60  # of 64 tokens


def test_only_domains_of_the_model_are_offered_unless_it_knows_none() -> None:
    assert {domain for domain, _ in choose(EXAMPLES, ["imdb", "shoes"])} == {"imdb"}
    assert {domain for domain, _ in choose(EXAMPLES, ["shoes"], each=1)} == set(EXAMPLES)


def test_a_file_brings_examples_of_its_own_domains(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("domain,text\n" + "shoes,they fit\n" * (KEPT + 5) + ",lost\nhats, \n", encoding="utf-8")
    assert read_examples(path) == {"shoes": ("they fit",) * KEPT}


def test_a_file_without_the_two_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("review\nfine\n", encoding="utf-8")
    with pytest.raises(BadFile, match="no column text and no column domain"):
        read_examples(path)
