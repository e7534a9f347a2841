"""Loading: the same pristine encoder for every variant, and everything that must stop it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertForMaskedLM

from stratified_models import BackboneError, LoadReport, StratifiedForSequenceClassification, load_pretrained
from stratified_models.backbones.distilbert import bert_to_distilbert
from stratified_models.testing import tiny_tokenizer
from tests.stratified_models.conftest import MINILM, TEXTS, VARIANTS, largest, needs_minilm


def load(
    folder: Path | str, variant: str = "none", **options: Any
) -> tuple[StratifiedForSequenceClassification, LoadReport]:
    options = {"max_length": 64, "gate_dim": 16, "seed": 0, **options}
    names, sets = ("negative", "neutral", "positive"), [[0, 1, 2], [0, 2]]
    return load_pretrained(
        folder, variant=variant, labels=names, domains=("a", "b"), domain_labels=sets, **options
    )


@pytest.fixture
def copy(backbone: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(backbone, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_variant_starts_from_the_same_encoder(backbone: Path) -> None:
    reports = [load(backbone, variant)[1] for variant in VARIANTS]
    assert len({report.backbone_sha256 for report in reports}) == 1
    assert all(not name.startswith("backbone.") for report in reports for name in report.missing)
    assert reports[0].family == "distilbert"
    assert not reports[0].converted


def test_modules_of_one_name_start_equal_in_every_variant(backbone: Path) -> None:
    models = [load(backbone, variant)[0] for variant in VARIANTS]
    for other in models[1:]:
        assert torch.equal(models[0].classifier.weight, other.classifier.weight)
    gates = [model.gate.state_dict() for model in models if model.gate is not None]
    assert all(torch.equal(gates[0][name], gate[name]) for gate in gates for name in gate)
    assert torch.equal(load(backbone, "moe")[0].classifier.weight, models[0].classifier.weight)
    assert not torch.equal(load(backbone, seed=1)[0].classifier.weight, models[0].classifier.weight)


def test_loading_leaves_the_global_generator_alone(backbone: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    load(backbone, "moe")
    assert torch.equal(torch.rand(3), expected)


def test_experts_are_copies_of_the_pretrained_network(backbone: Path) -> None:
    tensors = load_file(backbone / "model.safetensors")
    up = load(backbone, "moe")[0].variant.blocks["5"].get_submodule("experts").get_parameter("up_proj")
    for expert in up:
        assert torch.equal(expert, tensors["transformer.layer.5.ffn.lin1.weight"])


def test_a_checkpoint_with_a_head_is_loaded_by_its_prefix(copy: Path) -> None:
    config = DistilBertConfig.from_pretrained(copy)
    masked = DistilBertForMaskedLM(config)
    masked.distilbert.load_state_dict(load_file(copy / "model.safetensors"))
    masked.save_pretrained(copy)
    _, report = load(copy)
    assert any("vocab_transform" in name for name in report.unexpected)


def test_parameter_groups_hold_each_parameter_once(backbone: Path) -> None:
    for variant in VARIANTS:
        model, _ = load(backbone, variant)
        groups = model.parameter_multiplier_groups()
        names = [name for group in groups.values() for name in group]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        assert len(groups["geometry"]) == (0 if variant == "none" else 4)
        assert any("experts" in name for name in groups["backbone"]) == (variant == "moe")
        model.classifier.weight.requires_grad_(False)
        assert "classifier.weight" not in model.parameter_multiplier_groups()["new"]


def test_dropout_reaches_the_encoder(backbone: Path) -> None:
    model, _ = load(backbone, "moe", dropout=0.0)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_the_configuration_holds_no_folder_of_this_machine(copy: Path) -> None:
    model, _ = load(copy)
    assert model.config.backbone_config.name_or_path == "copy"


@pytest.mark.parametrize("length", [1000, 2])
def test_max_length_within_the_positions(length: int, backbone: Path) -> None:
    with pytest.raises(BackboneError, match=rf"max_length {length}.*set max_length"):
        load(backbone, max_length=length)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_family_without_an_adapter(copy: Path) -> None:
    edit(copy, model_type="electra")
    with pytest.raises(BackboneError, match=r"electra.*choose"):
        load(copy)


def test_missing_parameters_stop_it(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["transformer.layer.1.ffn.lin1.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 1 .*transformer\.layer\.1"):
        load(copy)


def test_values_that_are_not_finite_stop_it(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["transformer.layer.1.ffn.lin1.bias"][3] = torch.inf
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="not finite"):
        load(copy)


def test_weights_that_are_not_there_or_broken(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(BackboneError, match="weights"):
        load(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="weights"):
        load(copy)


def tiny_bert(**changes: Any) -> BertModel:
    sizes = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    bert = BertModel(BertConfig(**{**sizes, "intermediate_size": 64, **changes}), add_pooling_layer=False)
    bert.train(False)
    return bert


def test_bert_becomes_the_same_function_in_distilbert() -> None:
    bert = tiny_bert(initializer_range=0.3)
    config, tensors = bert_to_distilbert(bert)
    from transformers import DistilBertModel

    distil = DistilBertModel(config)
    distil.load_state_dict(tensors)
    rows = tiny_tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    valid = rows["attention_mask"].bool()
    with torch.no_grad():
        one, two = bert(**rows).last_hidden_state, distil.train(False)(**rows).last_hidden_state
    assert largest(one[valid], two[valid]) < 1e-5


@pytest.mark.parametrize("setting", [{"layer_norm_eps": 1e-5}, {"is_decoder": True}])
def test_bert_that_distilbert_cannot_express_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=next(iter(setting))):
        bert_to_distilbert(tiny_bert(**setting))


@needs_minilm
@pytest.mark.data
@pytest.mark.parametrize("variant", VARIANTS)
def test_minilm_converts_and_starts_as_itself(variant: str) -> None:
    from stratified_models import load_tokenizer, resolve_backbone

    model, report = load(MINILM, variant, family="distilbert", gate_dim=64)
    assert report.converted
    assert len(report.backbone_sha256) == 64
    bert = BertModel.from_pretrained(resolve_backbone(MINILM), add_pooling_layer=False).train(False)
    rows = load_tokenizer(MINILM, max_length=64)(list(TEXTS), padding=True, return_tensors="pt")
    valid = rows["attention_mask"].bool()
    model.prepare_for_inference()
    with torch.no_grad():
        found, expected = model.encode(**rows).hidden, bert(**rows).last_hidden_state
    assert largest(found[valid], expected[valid]) < 1e-5
