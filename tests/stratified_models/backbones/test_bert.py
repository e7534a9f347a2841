"""BERT: its pooler is adopted when the checkpoint has one, and a checkpoint runs as BERT or as DistilBERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertModel

from stratified_models import (
    BackboneError,
    LoadReport,
    StratifiedForSequenceClassification,
    load_pretrained,
    load_tokenizer,
    resolve_backbone,
)
from stratified_models.sources import quiet
from stratified_models.testing import tiny_backbone
from tests.stratified_models.conftest import MINILM, TEXTS, largest, needs_minilm


def load(folder: Path | str, **options: Any) -> tuple[StratifiedForSequenceClassification, LoadReport]:
    options = {"variant": "routing", "max_length": 64, "gate_dim": 16, "seed": 0, **options}
    names = ("negative", "neutral", "positive")
    return load_pretrained(folder, labels=names, domains=("a",), domain_labels=[[0, 1, 2]], **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_backbone(tmp_path, family="bert", layers=2)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_pretrained_pooler_is_adopted(folder: Path) -> None:
    model, report = load(folder)
    pretrained = load_file(folder / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(model.pooler.get_submodule("dense").get_parameter("weight"), pretrained)
    assert not [name for name in report.missing if name.startswith("pooler.")]
    assert report.unexpected == ()


def test_a_checkpoint_without_a_pooler_gets_a_new_one(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    one, report = load(folder)
    two, _ = load(folder)
    assert "pooler.dense.weight" in report.missing
    weight = one.pooler.get_submodule("dense").get_parameter("weight")
    assert torch.equal(weight, two.pooler.get_submodule("dense").get_parameter("weight"))
    assert not torch.equal(weight, tensors["pooler.dense.weight"])


def test_other_missing_parameters_still_stop_it(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 1 .*encoder\.layer\.0"):
        load(folder)


def test_it_also_runs_as_distilbert(folder: Path) -> None:
    as_bert, first = load(folder)
    as_distilbert, second = load(folder, family="distilbert")
    assert (first.family, first.converted) == ("bert", False)
    assert (second.family, second.converted) == ("distilbert", True)
    rows = load_tokenizer(folder, max_length=64)(list(TEXTS), padding=True, return_tensors="pt")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    with torch.no_grad():
        one, two = (model.train(False).encode(ids, mask).hidden for model in (as_bert, as_distilbert))
    assert largest(one[mask.bool()], two[mask.bool()]) < 1e-5


@pytest.mark.parametrize(
    ("name", "value"), [("is_decoder", True), ("position_embedding_type", "relative_key")]
)
def test_what_the_adapter_does_not_compute_is_refused(folder: Path, name: str, value: object) -> None:
    edit(folder, **{name: value})
    with pytest.raises(BackboneError, match=f"{name}=.*choose another"):
        load(folder)


def test_dropout_reaches_encoder_and_pooler(folder: Path) -> None:
    model, _ = load(folder, dropout=0.3)
    assert {module.p for module in model.backbone.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert model.pooler.get_submodule("dropout").p == 0.3


@needs_minilm
@pytest.mark.data
@pytest.mark.parametrize("family", [None, "distilbert"])
def test_minilm_starts_as_its_own_forward(family: str | None) -> None:
    model, report = load(MINILM, family=family, variant="moe", gate_dim=64)
    assert report.converted == (family == "distilbert")
    folder = resolve_backbone(MINILM)
    rows = load_tokenizer(MINILM, max_length=64)(list(TEXTS), padding=True, return_tensors="pt")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    with quiet(), torch.no_grad():
        expected = BertModel.from_pretrained(folder).train(False)(ids, mask).last_hidden_state
        hidden = model.prepare_for_inference().encode(ids, mask).hidden
        assert largest(hidden[mask.bool()], expected[mask.bool()]) < 2e-5
        if family is None:
            head = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).train(False)
            model.classifier.load_state_dict(head.classifier.state_dict())
            assert largest(model(ids, mask).logits, head(ids, mask).logits) < 1e-6
