"""RoBERTa: positions count from the padding id, and its head is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig

from stratified_models import BackboneError, load_tokenizer
from stratified_models.registry import FAMILIES
from stratified_models.testing import tiny_backbone, tiny_model
from tests.stratified_models.conftest import largest, move_

ROBERTA = FAMILIES["roberta"]


def test_two_positions_are_lost_to_the_padding_id(tmp_path: Path) -> None:
    assert ROBERTA.max_positions(RobertaConfig(max_position_embeddings=514)) == 512
    tiny_backbone(tmp_path, family="roberta", layers=2, positions=32)
    model = tiny_model(tmp_path, max_length=32)
    longest = torch.full((1, 32), 9)
    assert bool(torch.isfinite(model(longest).logits).all())
    with pytest.raises(BackboneError, match="max_length 33 is outside 3 … 32"):
        tiny_model(tmp_path, max_length=33)


def test_a_word_more_in_front_moves_positions_but_padding_does_not(tmp_path: Path) -> None:
    tiny_backbone(tmp_path, family="roberta", layers=2)
    model = move_(tiny_model(tmp_path)).prepare_for_inference()
    text = load_tokenizer(tmp_path, max_length=32)("good film")["input_ids"]
    padded = torch.tensor([[1, 1, *text]])  # on the left: positions still count from the first token
    with torch.no_grad():
        plain = model.encode(torch.tensor([text])).hidden
        shifted = model.encode(padded, (padded != 1).long()).hidden
    assert largest(plain[0, 1:], shifted[0, 3:]) < 1e-5


def test_a_configuration_without_a_padding_id_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"pad_token_id=None.*choose another"):
        ROBERTA.check(RobertaConfig(pad_token_id=None))


def test_the_head_is_new_and_has_both_dropouts(tmp_path: Path) -> None:
    tiny_backbone(tmp_path, family="roberta", layers=2)
    model = tiny_model(tmp_path, dropout=0.25)
    assert [module.p for module in model.pooler.modules() if isinstance(module, torch.nn.Dropout)] == [
        0.25
    ] * 2
