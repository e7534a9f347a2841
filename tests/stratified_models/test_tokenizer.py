"""The tokenizer: freed of padding and truncation, without token types, and checked against the encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stratified_models import BackboneError, load_tokenizer
from stratified_models.testing import tiny_backbone


@pytest.fixture
def copy(backbone: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(backbone, tmp_path / "copy"))


def test_what_the_file_switches_on_is_off(copy: Path) -> None:
    path = copy / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    raw["padding"] = {
        "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(raw))
    tokenizer = load_tokenizer(copy, max_length=32)
    rows = tokenizer(["a good film and a bad book", "good"])
    assert set(rows) == {"input_ids", "attention_mask"}
    assert [len(ids) for ids in rows["input_ids"]] == [9, 3]
    assert tokenizer.model_max_length == 32
    tokenizer.save_pretrained(str(copy))
    assert set(AutoTokenizer.from_pretrained(copy)("good")) == {"input_ids", "attention_mask"}


def test_any_text_tokenises(backbone: Path) -> None:
    tokenizer = load_tokenizer(backbone, max_length=32)
    for text in ("", "電 🙂", "Supercalifragilistic!!", "\x00\n"):
        assert tokenizer(text)["input_ids"][0] == tokenizer.cls_token_id


def test_not_there(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(BackboneError, match="knows no words"):
        load_tokenizer(copy, max_length=32)


def test_of_another_vocabulary(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 50}))
    with pytest.raises(BackboneError, match="50"):
        load_tokenizer(copy, max_length=32)


def test_of_another_padding_id(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 7}))
    with pytest.raises(BackboneError, match=r"pads with id 0.*7"):
        load_tokenizer(copy, max_length=32)


def test_without_padding(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    raw["pad_token"] = None
    path.write_text(json.dumps(raw))
    with pytest.raises(BackboneError, match="padding token"):
        load_tokenizer(copy, max_length=32)


@pytest.mark.parametrize(
    ("family", "field", "value", "message"),
    [
        ("roberta", "eos_token_id", 5, "eos_token_id 2, the encoder expects 5"),
        ("roberta", "bos_token_id", 4, "bos_token_id 0, the encoder expects 4"),
        ("gpt2", "eos_token_id", 9, "eos_token_id 0, the encoder expects 9"),
        ("gpt2", "vocab_size", 600, "ids up to .*above the encoder's 600"),
    ],
)
def test_of_another_family(family: str, field: str, value: int, message: str, tmp_path: Path) -> None:
    tiny_backbone(tmp_path, family=family, layers=1)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(BackboneError, match=f"{message}.*take the tokenizer that belongs to it"):
        load_tokenizer(tmp_path, max_length=32)


def test_without_padding_the_end_of_text_pads_where_the_encoder_names_none(tmp_path: Path) -> None:
    tiny_backbone(tmp_path, family="gpt2", layers=1)
    assert load_tokenizer(tmp_path, max_length=32).pad_token_id == 0
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 7}))
    with pytest.raises(BackboneError, match="no padding token"):
        load_tokenizer(tmp_path, max_length=32)
