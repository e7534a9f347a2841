"""Experts: equal ones are the dense network, executions agree (13), the bias balances (15), nothing ties."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.moe import batched_mm_experts_forward

from stratified_models.hooks import Strata
from stratified_models.variants.moe import BIAS_STEP, ExpertBlock, Experts, StratifiedExperts
from tests.stratified_models.conftest import Build, largest


def experts(spread: float) -> Experts:
    made = Experts(experts=4, width=8, inner=24, activation=F.gelu)
    made.initialise_()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape[1:]) + spread * torch.randn_like(parameter))
    return made


def routes(tokens: int = 40) -> tuple[Tensor, Tensor]:
    weights, chosen = torch.softmax(torch.randn(tokens, 4), -1).topk(2)
    return chosen, weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("execution", ["dense", "grouped"])
def test_invariant_13_equal_experts_are_the_dense_network(execution: str) -> None:
    equal = experts(0.0)
    equal.execution = "dense" if execution == "dense" else "grouped"
    x, (chosen, weights) = torch.randn(40, 8), routes()
    inner = F.gelu(F.linear(x, equal.up_proj[0], equal.up_proj_bias[0]))
    assert (
        largest(equal(x, chosen, weights), F.linear(inner, equal.down_proj[0], equal.down_proj_bias[0]))
        < 1e-5
    )


def test_invariant_13_executions_agree_in_value_and_gradient() -> None:
    apart = experts(0.5)
    x, (chosen, weights) = torch.randn(40, 8), routes()
    answers, gradients = [], []
    for execution in ("dense", "grouped"):
        apart.execution = "dense" if execution == "dense" else "grouped"
        apart.zero_grad()
        answer = apart(x, chosen, weights)
        answer.square().sum().backward()
        answers.append(answer.detach())
        gradients.append(apart.up_proj.grad.clone() if apart.up_proj.grad is not None else torch.zeros(0))
    assert largest(answers[0], answers[1]) < 1e-5
    assert largest(gradients[0], gradients[1]) < 1e-4
    with torch.no_grad():
        assert largest(apart(x, chosen, weights), answers[0]) < 1e-5  # one expert after the other
        assert largest(batched_mm_experts_forward(apart, x, chosen, weights), answers[0]) < 1e-4


def test_an_expert_nobody_chose_still_has_a_gradient() -> None:
    apart, x = experts(0.5), torch.randn(6, 8)
    apart(x, torch.tensor([[0, 1]] * 6), torch.full((6, 2), 0.5)).sum().backward()
    for parameter in apart.parameters():
        assert parameter.grad is not None
        assert not bool(parameter.grad[2:].any())


def block(strata: int = 8) -> ExpertBlock:
    made = ExpertBlock(experts=4, strata=strata, width=8, inner=24, activation=F.gelu, dropout=0.0)
    made.initialise_()
    made.experts.initialise_()
    return made


def test_every_stratum_has_a_first_and_a_second_expert() -> None:
    start = block().stratum_map
    assert start.max(-1).indices.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    seconds = [int((row == 0.5).nonzero()) for row in start]
    assert seconds == [1, 2, 3, 0, 2, 3, 0, 1]
    assert (
        len({(k % 4, second) for k, second in enumerate(seconds)}) == 8
    )  # no two experts are always together


def test_loads_count_valid_tokens_alone() -> None:
    p = torch.softmax(torch.randn(2, 6, 8), -1)
    valid = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    _, trace = block().feed_forward(torch.randn(2, 6, 8), lambda x: x, Strata(p, p, valid))
    assert trace is not None
    assert float(trace.load.sum()) == 2 * 8
    assert abs(float(trace.probability.detach().sum()) - 8) < 1e-5


def test_bias_moves_the_selection_and_never_the_weights() -> None:
    made, p = block(), torch.softmax(torch.randn(1, 5, 8), -1)
    with torch.no_grad():
        made.experts.down_proj_bias.copy_(torch.eye(4, 8))  # each expert adds a mark of its own
        for stack in (made.experts.up_proj, made.experts.down_proj):
            stack.zero_()
        made.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 5.0]))
    known = Strata(p, p, torch.ones(1, 5, dtype=torch.bool))
    marks = made.feed_forward(torch.zeros(1, 5, 8), lambda x: x, known)[0][..., :4]
    probability = torch.softmax(p @ made.stratum_map, -1)
    expected = F.pad(probability[..., 2:] / probability[..., 2:].sum(-1, keepdim=True), (2, 0))
    assert largest(marks, expected) < 1e-6


def test_invariant_15_the_bias_loop_balances(build: Build) -> None:
    variant = build("moe").variant
    assert isinstance(variant, StratifiedExperts)
    made = next(iter(variant._expert_blocks()))
    scores = torch.softmax(torch.randn(4000, 4) + torch.tensor([1.2, 0.0, 0.1, -1.4]), -1)
    loads = torch.zeros(4)
    for _ in range(400):
        loads = torch.bincount((scores + made.bias).topk(2).indices.flatten(), minlength=4).float()
        made.load.copy_(loads)
        variant.balance_()
        assert not bool(made.load.any())
    assert largest(loads / loads.sum(), torch.full((4,), 0.25)) <= 0.05


def test_balancing_reduces_over_ranks_and_steps_by_sign(build: Build) -> None:
    variant = build("moe").variant
    assert isinstance(variant, StratifiedExperts)
    for made in variant._expert_blocks():
        made.load.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0]))
    variant.balance_(lambda loads: loads + torch.tensor([0.0, 8.0, 2.0, 2.0]))  # totals 4, 8, 2, 2: mean 4
    for made in variant._expert_blocks():
        assert torch.allclose(made.bias, BIAS_STEP * torch.tensor([0.0, -1.0, 1.0, 1.0]))


def test_training_forwards_add_loads_and_evaluation_does_not(build: Build, batch: dict[str, Tensor]) -> None:
    model = build("moe").train()
    model(**batch)
    model(**batch)
    tokens = int(batch["attention_mask"].sum())
    for made in model.variant.blocks.values():
        assert float(made.get_buffer("load").sum()) == 2 * 2 * tokens
    model.train(False)(**batch)
    assert float(model.variant.blocks["3"].get_buffer("load").sum()) == 2 * 2 * tokens


def test_experts_part_in_training(build: Build, batch: dict[str, Tensor]) -> None:
    model = build("moe", dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    up = model.variant.blocks["3"].get_submodule("experts").get_parameter("up_proj")
    assert all(largest(up[a], up[b]) > 1e-4 for a in range(4) for b in range(a))


def test_expert_blocks_bring_their_own_network(build: Build) -> None:
    names = dict(build("moe").named_parameters())
    assert not [name for name in names if name.startswith("backbone.transformer.layer.3.ffn")]
    assert "backbone.transformer.layer.2.ffn.lin1.weight" in names
