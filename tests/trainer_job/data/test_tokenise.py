"""Token tables hold what the tokenizer says, and are found again only by all that decides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.trainer_job.data.corpora import rows
from trainer_job.config import DataConfig
from trainer_job.data import load_corpus, tokenize
from trainer_job.data.tokenise import tokenizer_hash

Make = Callable[..., DataConfig]


def tokenizer(*words: str) -> Any:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "row", "number", "says", "neg", "pos", *words]
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast: Any = PreTrainedTokenizerFast  # its constructor has no types
    return fast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture
def corpus(make: Make) -> Any:
    return load_corpus(make({"films": {"train": rows(60, prefix="films")}}))


def test_rows_carry_ids_lengths_and_labels(corpus: Any) -> None:
    table = tokenize(corpus, tokenizer(), max_length=6, cache=None)["test"]
    assert table.column_names == ["input_ids", "length", "labels", "domain_id", "row_id"]
    for row, source in zip(table, corpus.splits["test"], strict=True):
        assert row["input_ids"][0] == 2
        assert row["input_ids"][-1] == 3
        assert row["length"] == len(row["input_ids"]) == 6  # truncated, special tokens included
        assert (row["labels"], row["row_id"]) == (source["label"], source["row_id"])


def test_the_cache_is_shared_only_by_equal_runs(corpus: Any, tmp_path: Path) -> None:
    first = tokenize(corpus, tokenizer(), max_length=16, cache=tmp_path)
    again = tokenize(corpus, tokenizer(), max_length=16, cache=tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    assert first["train"].to_dict() == again["train"].to_dict()
    tokenize(corpus, tokenizer(), max_length=17, cache=tmp_path)
    tokenize(corpus, tokenizer("films"), max_length=16, cache=tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 3


def test_a_broken_cache_is_built_again(corpus: Any, tmp_path: Path) -> None:
    tokenize(corpus, tokenizer(), max_length=16, cache=tmp_path)
    (folder,) = (tmp_path / "tokens").iterdir()
    (folder / "test.arrow").write_bytes(b"")
    assert len(tokenize(corpus, tokenizer(), max_length=16, cache=tmp_path)["test"]) == len(
        corpus.splits["test"]
    )
    assert (folder / "test.arrow").stat().st_size > 0


def test_padding_and_truncation_settings_do_not_change_the_hash() -> None:
    plain, set_up = tokenizer(), tokenizer()
    set_up.backend_tokenizer.enable_padding(length=128)
    set_up.backend_tokenizer.enable_truncation(128)
    assert tokenizer_hash(plain) == tokenizer_hash(set_up) != tokenizer_hash(tokenizer("films"))
