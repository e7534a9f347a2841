"""Tiny checkpoints: framed and padded as the real ones, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from stratified_models import BackboneError, load_tokenizer
from stratified_models.testing import tiny_backbone
from stratified_models.tiny import TINY_FAMILIES, tiny_tokenizer

FRAMES = {"distilbert": (2, 3, 0), "bert": (2, 3, 0), "roberta": (0, 2, 1), "gpt2": (None, None, 0)}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_frame_and_padding_are_the_family_s_and_any_text_tokenises(family: str, tmp_path: Path) -> None:
    tiny_backbone(tmp_path, family=family, width=16, layers=2, heads=2)
    tokenizer = load_tokenizer(tmp_path, max_length=32)
    first, last, pad = FRAMES[family]
    assert tokenizer.pad_token_id == pad
    for text in ("", "Good film", "電 🙂", "\x00\n", "Supercalifragilistic!!"):
        ids = tokenizer(text)["input_ids"]
        if first is not None:
            assert (ids[0], ids[-1]) == (first, last)
        assert max(ids, default=0) < AutoConfig.from_pretrained(tmp_path).vocab_size


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_byte_pairs_are_trained_alike_every_time_and_lose_nothing(family: str) -> None:
    one, two = tiny_tokenizer(family), tiny_tokenizer(family)
    assert one.get_vocab() == two.get_vocab()
    text = "The movie wasn't 3/10, 🙂 but great."
    assert one.decode(one(text)["input_ids"], skip_special_tokens=True) == text
    assert len(one(" wonderful ending")["input_ids"]) < 12  # words are known, not only letters


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(BackboneError, match=r"'electra' is unknown; choose one of distilbert"):
        tiny_tokenizer("electra")
