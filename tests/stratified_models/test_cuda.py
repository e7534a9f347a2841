"""Invariant 22: what holds on a CPU holds on a GPU, where kernels are others and training is bf16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stratified_models.variants.moe import Experts
from tests.stratified_models.conftest import VARIANTS, Build, largest

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="the kernels of a GPU are asked, and there is none"
)


def there(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the device."""
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_22_a_gpu_answers_as_the_cpu(variant: str, build: Build, inputs: dict[str, Tensor]) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        here = model(**inputs)
        nn.Module.to(model, DEVICE)
        one, two = model(**there(inputs)), model(**there(inputs))
    assert torch.equal(one.logits, two.logits)
    assert largest(one.logits.cpu(), here.logits) < 1e-3
    if one.strata is not None:
        assert largest(one.strata.cpu(), here.strata) < 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_22_training_in_bfloat16_learns(
    variant: str, build: Build, batch: dict[str, Tensor]
) -> None:
    model = build(variant, moved=True, dropout=0.0, domain_dropout=0.0).train()
    nn.Module.to(model, DEVICE)
    gate = None if model.gate is None else copy.deepcopy(model.gate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = model(**there(batch)).loss
        loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
        optimizer.step()
        model.balance_experts_()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    if gate is not None and model.gate is not None:  # the gate stays in single precision, and moves
        assert model.gate.means.dtype == torch.float32
        assert largest(model.gate.means, gate.means) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_invariant_22_grouped_experts_are_the_dense_ones(dtype: torch.dtype) -> None:
    experts = Experts(experts=4, width=32, inner=64, activation=nn.functional.gelu)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.1)
    experts = experts.to(DEVICE, dtype)
    x = torch.randn(48, 32, device=DEVICE, dtype=dtype)
    chosen = torch.rand(48, 4, device=DEVICE).topk(2).indices
    weights = torch.rand(48, 2, device=DEVICE).softmax(-1)
    found = []
    for execution in ("dense", "grouped"):
        experts.execution = execution
        experts.zero_grad()
        y = experts(x, chosen, weights.to(dtype))
        y.float().square().sum().backward()
        gradient = experts.up_proj.grad
        assert gradient is not None
        found.append((y.detach().float(), gradient.float()))
    bound = 1e-4 if dtype == torch.float32 else 0.05
    for dense, grouped in zip(*found, strict=True):
        assert largest(dense, grouped) < bound * float(dense.abs().max())
