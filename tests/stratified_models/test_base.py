"""The classifier's invariants 1–9 and 18, on a tiny encoder, after its zeros were moved (except 1, 2, 9)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DistilBertForSequenceClassification, DistilBertModel, PreTrainedTokenizerFast

from stratified_models import StratifiedForSequenceClassification
from tests.stratified_models.conftest import STRATIFIED, TEXTS, VARIANTS, Build, largest

FIELDS = ("logits", "domain_logits", "energy", "geometry", "occupancy")


def fresh_optimizer(model: StratifiedForSequenceClassification) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_01_starts_as_the_pretrained_encoder(
    variant: str, calibrated: bool, build: Build, backbone: Path, inputs: dict[str, Tensor]
) -> None:
    model = build(variant)
    if calibrated:
        model.calibrate_gate_([inputs], seed=0)
    model.prepare_for_inference()
    reference = DistilBertForSequenceClassification(
        model.config.backbone_config.__class__.from_pretrained(backbone, num_labels=3)
    )
    reference.distilbert = DistilBertModel.from_pretrained(backbone)
    reference.pre_classifier.load_state_dict(model.pooler.get_submodule("pre_classifier").state_dict())
    reference.classifier.load_state_dict(model.classifier.state_dict())
    reference.train(False)
    valid = inputs["attention_mask"].bool()
    with torch.no_grad():
        hidden = model.encode(inputs["input_ids"], inputs["attention_mask"]).hidden
        assert largest(hidden[valid], reference.distilbert(**inputs).last_hidden_state[valid]) < 1e-5
        assert largest(model(**inputs).logits, reference(**inputs).logits) < 1e-6


# What may have a gradient of exactly zero before the first step: all it acts through is still zero.
ASLEEP = {
    "none": set(),
    "attention": {"gate.log_beta", "gate.token", "gate.row", "gate.domain_prior", "down"},
    "routing": {"gate.log_beta", "gate.token", "gate.row", "gate.domain_prior", "down", "down_bias"},
    "layers": {"gate.log_beta", "gate.token", "gate.row", "gate.domain_prior"},
    "moe": set(),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_02_every_parameter_learns(variant: str, build: Build, batch: dict[str, Tensor]) -> None:
    model = build(variant, domain_dropout=0.0, dropout=0.0).train()
    model.calibrate_gate_([{name: batch[name] for name in ("input_ids", "attention_mask")}], seed=0)
    optimizer = fresh_optimizer(model)
    for step in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        zero = {name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.any())}
        unread = {
            "backbone.embeddings.position_embeddings.weight",
            "backbone.embeddings.word_embeddings.weight",
        }
        asleep = {n for n in zero if n in ASLEEP[variant] or n.rsplit(".", 1)[-1] in ASLEEP[variant]}
        # a key's bias shifts all scores of a query alike, so its gradient is rounding, which may be 0
        zero = {n for n in zero if not n.endswith("k_lin.bias")} - unread
        assert zero == (asleep if step == 0 else set())
        if step == 0 and variant != "none":
            assert {n.rsplit(".", 1)[-1] for n in zero} == {n.rsplit(".", 1)[-1] for n in ASLEEP[variant]}
        optimizer.step()
        model.balance_experts_()


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_03_padding_changes_nothing(variant: str, build: Build, inputs: dict[str, Tensor]) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    wider = {name: torch.nn.functional.pad(tensor, (0, 24)) for name, tensor in inputs.items()}
    with torch.no_grad():
        one, two = model(**inputs), model(**wider)
    for field in FIELDS:
        if field in one:
            assert largest(one[field], two[field]) < 1e-6, field
    if one.strata is not None:
        assert largest(one.strata, two.strata[:, : one.strata.shape[1]]) < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_04_a_row_alone_is_as_in_its_batch(
    variant: str, build: Build, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        together = model(**inputs)
        for row, text in enumerate(TEXTS):
            alone = model(**tokenizer(text, return_tensors="pt"))
            for field in FIELDS:
                if field in alone:
                    assert largest(alone[field][0], together[field][row]) < 5e-6, (text, field)


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_05_permuted_rows_give_permuted_outputs(
    variant: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    order = torch.randperm(len(TEXTS))
    with torch.no_grad():
        one = model(**inputs)
        two = model(**{name: tensor[order] for name, tensor in inputs.items()})
    for field in FIELDS:
        if field in one:
            assert largest(one[field][order], two[field]) < 1e-6, field


@pytest.mark.parametrize("variant", STRATIFIED)
def test_invariant_06_posterior_is_one_and_other_positions_carry_the_mean(
    variant: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        out = model(**inputs)
    assert largest(out.strata.sum(-1), torch.ones(1)) < 1e-6
    special = torch.isin(inputs["input_ids"], torch.tensor(model.config.special_token_ids))
    content = inputs["attention_mask"].bool() & ~special
    for row in range(len(TEXTS)):
        words = content[row]
        assert bool(torch.isfinite(out.logits[row]).all())
        if not bool(words.any()):  # the empty text
            assert torch.equal(out.strata[row], out.occupancy[row].expand_as(out.strata[row]))
            continue
        mean = out.strata[row][words].mean(0)
        assert largest(out.strata[row][~words], mean.expand(int((~words).sum()), -1)) < 1e-6
        assert largest(out.occupancy[row], mean) < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_07_a_given_domain_is_a_certain_one(
    variant: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    rows = len(TEXTS)
    with torch.no_grad():
        unknown, silent = model(**inputs, domain_id=torch.full((rows,), -1)), model(**inputs)
        given = model(**inputs, domain_id=torch.full((rows,), 1))
        model.domain_head.weight.zero_()
        model.domain_head.bias.copy_(torch.tensor([-1e4, 0.0, -1e4]))
        certain = model(**inputs)
    assert torch.equal(unknown.logits, silent.logits)
    assert largest(given.logits, certain.logits) < 1e-6
    assert largest(given.logits, silent.logits) > 1e-3
    bias = model.domain_head.class_bias
    assert bias is not None
    if variant != "none":  # it also acts through the gate, not only by its bias
        with torch.no_grad():
            bias.zero_()
            through = largest(
                model(**inputs).logits, model(**inputs, domain_id=torch.zeros(rows).long()).logits
            )
        assert through > 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_08_save_and_load_is_the_same_model(
    variant: str, build: Build, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    model.save_pretrained(tmp_path)
    loaded: Any = StratifiedForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    again, info = loaded
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    one, two = model.state_dict(), again.state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again.prepare_for_inference()(**inputs).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_09_a_backbone_alone_leaves_nothing_uninitialised(
    variant: str, build: Build, backbone: Path, inputs: dict[str, Tensor]
) -> None:
    config = build(variant).config
    loaded: Any = StratifiedForSequenceClassification.from_pretrained(
        backbone, config=config, output_loading_info=True
    )
    model, info = loaded
    assert not [name for name in info["missing_keys"] if name.startswith("backbone.")]
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert bool(torch.isfinite(tensor.float()).all()), name
        assert name.endswith("position_ids") or float(tensor.detach().float().abs().max()) <= 50, name
    assert bool(torch.isfinite(model(**inputs).logits).all())


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_18_forward_and_training_are_deterministic(
    variant: str, build: Build, batch: dict[str, Tensor]
) -> None:
    start = build(variant, moved=True)
    with torch.no_grad():
        assert torch.equal(start(**batch).logits, start(**batch).logits)
    states = []
    for _ in range(2):
        model = copy.deepcopy(start).train()
        optimizer = fresh_optimizer(model)
        torch.manual_seed(3)
        for _ in range(3):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            model.balance_experts_()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
