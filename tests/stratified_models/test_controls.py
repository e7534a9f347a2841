"""The controls: what each takes away, and that everything else holds as for the variants proper."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stratified_models import StratifiedForSequenceClassification, controls, flops_per_token
from stratified_models.config import CONTROLS, VARIANTS, StratifiedConfig
from stratified_models.errors import ModelError
from stratified_models.gate import GateReading
from stratified_models.hooks import Strata
from stratified_models.registry import added_parameters
from stratified_models.variants.matched import AdapterBlock
from tests.stratified_models.conftest import DOMAINS, STRATIFIED, Build, largest

SHORT = [("none", "matched"), *(("moe", control) for control in CONTROLS[1:])]
ARMS = [("none", "matched"), *((variant, control) for variant in STRATIFIED for control in CONTROLS[1:])]
arms = pytest.mark.parametrize(("variant", "control"), ARMS)
FIELDS = ("logits", "domain_logits", "energy", "geometry", "occupancy")


def outputs(model: StratifiedForSequenceClassification, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model(**rows)
    return {name: found[name] for name in FIELDS if found.get(name) is not None}


def reading(content: list[list[int]], strata: int = 3) -> tuple[GateReading, Tensor]:
    mask = torch.tensor(content, dtype=torch.bool)
    posterior = torch.softmax(torch.randn(*mask.shape, strata), dim=-1)
    return GateReading(posterior, posterior.mean(1), torch.zeros(mask.shape)), mask


@arms
def test_control_starts_as_the_plain_model(
    variant: str, control: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    plain = build("none").prepare_for_inference()
    model = build(variant, control=control)
    model.calibrate_gate_([inputs], seed=0)
    model.prepare_for_inference()
    assert largest(outputs(model, inputs)["logits"], outputs(plain, inputs)["logits"]) < 1e-6


@arms
def test_control_every_trainable_parameter_gets_a_gradient_and_stands_in_one_group(
    variant: str, control: str, build: Build, batch: dict[str, Tensor]
) -> None:
    model = build(variant, control=control, moved=True).train()
    model(**batch).loss.backward()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trainable
    groups = model.parameter_multiplier_groups()
    assert sorted(name for names in groups.values() for name in names) == sorted(trainable)


@arms
def test_control_padding_batching_and_order_change_nothing(
    variant: str, control: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build(variant, control=control, moved=True).prepare_for_inference()
    expected = outputs(model, inputs)
    pad = torch.zeros(8, 24, dtype=torch.long)  # what stands under the mask must not matter
    wider = {
        "input_ids": torch.cat([inputs["input_ids"], pad], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.zeros_like(pad)], dim=1),
    }
    order = torch.randperm(8)
    length = int(inputs["attention_mask"][2].sum())
    alone = {name: rows[2:3, :length] for name, rows in inputs.items()}
    for name, value in outputs(model, wider).items():
        assert largest(value, expected[name]) < 1e-5
    for name, value in outputs(model, {key: rows[order] for key, rows in inputs.items()}).items():
        assert largest(value, expected[name][order]) < 1e-5
    for name, value in outputs(model, alone).items():
        assert largest(value, expected[name][2:3]) < 1e-5


@pytest.mark.parametrize(("variant", "control"), SHORT)
def test_control_save_and_load_is_the_same_model(
    variant: str, control: str, build: Build, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    model = build(variant, control=control, moved=True).prepare_for_inference()
    model.save_pretrained(tmp_path)
    loaded = StratifiedForSequenceClassification.from_pretrained(tmp_path).prepare_for_inference()
    assert loaded.config.control == control
    assert model.state_dict().keys() == loaded.state_dict().keys()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (control == "random_gate")
    assert frozen == {name for name, p in loaded.named_parameters() if not p.requires_grad}
    expected = outputs(model, inputs)
    for name, value in outputs(loaded, inputs).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize(("variant", "control"), SHORT)
def test_control_training_lowers_the_loss_and_moves_nothing_frozen(
    variant: str, control: str, build: Build, batch: dict[str, Tensor]
) -> None:
    model = build(variant, control=control, dropout=0.0, domain_dropout=0.0).train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        model.balance_experts_()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in frozen.items())


@pytest.mark.parametrize("variant", STRATIFIED)
def test_matched_has_the_parameters_of_the_variant_that_it_matches(variant: str, build: Build) -> None:
    plain, target = build("none").num_parameters(), build(variant).num_parameters()
    found = build("none", control="matched", matched_variant=variant).num_parameters()
    assert abs(found - target) <= plain // 1000 + 40  # half a column
    assert added_parameters(build(variant).config, build(variant).family, variant) == target - plain


def test_matched_takes_the_largest_variant_without_experts_by_default(build: Build) -> None:
    sizes = {variant: build(variant).num_parameters() for variant in STRATIFIED if variant != "moe"}
    assert StratifiedConfig().matched_variant == max(sizes, key=lambda name: sizes[name])


def test_matched_costs_two_operations_a_parameter(build: Build) -> None:
    model = build("none", control="matched")
    plain = flops_per_token(build("none").config, 64)
    grown = model.num_parameters() - build("none").num_parameters()
    assert flops_per_token(model.config, 64) - plain == pytest.approx(2 * grown, rel=0.01)


def test_a_wide_adapter_learns_no_faster_than_a_narrow_one() -> None:
    """By one step of Adam from the same start, on the same tokens."""
    x, target = torch.randn(64, 32), torch.randn(64, 32)
    strata = Strata.nothing(torch.ones(1, 64, dtype=torch.bool))
    moved = []
    for columns in (16, 1024):
        adapter = AdapterBlock(width=32, columns=columns)
        adapter.initialise_()
        optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-3)
        loss = (adapter.feed_forward(x, torch.zeros_like, strata)[0] * target).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            moved.append(float(adapter.feed_forward(x, torch.zeros_like, strata)[0].norm()))
    narrow, wide = moved
    assert 0.5 < wide / narrow < 2  # without the scale some 60


def test_controls_without_a_gate_cost_no_gate(build: Build) -> None:
    assert flops_per_token(build("layers", control="lexical").config, 64) < flops_per_token(
        build("layers", control="shuffled").config, 64
    )


def test_shuffled_moves_by_half_the_content_and_skips_special_tokens() -> None:
    content = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0, 0]], dtype=torch.bool)  # 5 content tokens: by 2
    assert controls.half_text_away(content)[0].tolist() == [0, 3, 5, 6, 4, 1, 2, 7, 8]


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [0, 1, 0, 0]])
def test_shuffled_leaves_texts_of_no_or_one_word(row: list[int]) -> None:
    assert controls.half_text_away(torch.tensor([row], dtype=torch.bool))[0].tolist() == [0, 1, 2, 3]


def test_shuffled_keeps_the_mixture_of_every_row() -> None:
    found, content = reading([[0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    moved = controls.shuffled(found, content)
    for row in range(3):
        before, after = found.posterior[row, content[row]], moved.posterior[row, content[row]]
        assert torch.equal(before.sort(dim=0).values, after.sort(dim=0).values)
        assert not torch.equal(before, after)
        assert torch.equal(found.posterior[row, ~content[row]], moved.posterior[row, ~content[row]])
    assert moved.occupancy is found.occupancy


@pytest.mark.parametrize("variant", STRATIFIED)
def test_shuffled_has_the_variant_s_parameters_and_differs_from_it(
    variant: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    proper, control = build(variant, moved=True), build(variant, control="shuffled", moved=True)
    assert proper.state_dict().keys() == control.state_dict().keys()
    control.load_state_dict(proper.state_dict())
    proper.prepare_for_inference(), control.prepare_for_inference()
    assert torch.equal(outputs(proper, inputs)["occupancy"], outputs(control, inputs)["occupancy"])
    assert largest(outputs(proper, inputs)["logits"], outputs(control, inputs)["logits"]) > 1e-4


def test_random_gate_is_frozen_uncalibrated_and_has_no_geometry_loss(
    build: Build, batch: dict[str, Tensor], inputs: dict[str, Tensor]
) -> None:
    model = build("routing", control="random_gate")
    assert model.gate is not None
    before = copy.deepcopy(model.gate.state_dict())
    assert model.calibrate_gate_([inputs], seed=0).vectors == 0
    assert all(torch.equal(value, before[name]) for name, value in model.gate.state_dict().items())
    assert not any(p.requires_grad for p in model.gate.parameters())
    assert not any(bool(p.any()) for p in (model.gate.token, model.gate.row, model.gate.domain_prior))
    assert model.parameter_multiplier_groups()["geometry"] == []
    assert model(**batch).loss_geometry is None
    assert model(**batch).geometry is not None


def test_lexical_strata_are_token_ids_modulo_k(build: Build, inputs: dict[str, Tensor]) -> None:
    model = build("layers", control="lexical").prepare_for_inference()
    with torch.no_grad():
        strata = model(**inputs).strata
    special = torch.tensor(model.config.special_token_ids)
    content = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)
    assert torch.equal(strata.argmax(-1)[content], inputs["input_ids"][content] % 8)
    assert model.gate is None
    assert largest(strata.sum(-1), torch.ones(strata.shape[:2])) < 1e-6
    mean = strata[0][content[0]].mean(0)
    assert largest(strata[0, 0], mean) < 1e-6
    assert largest(strata[3, 0], torch.full((8,), 1 / 8)) == 0  # the empty text


def test_lexical_needs_token_ids(build: Build) -> None:
    with pytest.raises(ModelError, match="give input_ids"):
        build("layers", control="lexical")(inputs_embeds=torch.zeros(1, 4, 32))


def test_domain_only_strata_are_the_domain_weights(build: Build, inputs: dict[str, Tensor]) -> None:
    model = build("layers", control="domain_only", moved=True).prepare_for_inference()
    given = torch.tensor([0, 1, 2, -1, -1, -1, 0, 1])
    with torch.no_grad():
        found = model(**inputs, domain_id=given)
    assert found.strata[1, :, 1].tolist() == [1.0] * inputs["input_ids"].shape[1]
    inferred = torch.softmax(found.domain_logits[3], dim=-1)
    assert largest(found.strata[3, 0, : len(DOMAINS)], inferred) < 1e-6
    assert not bool(found.strata[..., len(DOMAINS) :].any())
    assert found.geometry is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "none", "control": "shuffled"}, "does not fit variant 'none'; choose matched"),
        ({"variant": "moe", "control": "matched"}, "does not fit variant 'moe'"),
        ({"variant": "moe", "control": "other"}, "'other' does not fit"),
        ({"matched_variant": "none"}, "matched_variant 'none' is unknown"),
        (
            {"variant": "moe", "control": "domain_only", "num_strata": 1, "domains": ["a", "b"]},
            "set it ≥ 2",
        ),
    ],
)
def test_what_is_no_control_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        StratifiedConfig(**options)


def test_every_variant_has_its_controls() -> None:
    assert {variant for variant, _ in ARMS} == set(VARIANTS)
    assert {control for _, control in ARMS} == set(CONTROLS)
