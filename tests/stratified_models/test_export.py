"""Graphs: strict export at shapes it was not traced with (invariant 17), checkpointing, autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stratified_models import StratifiedForSequenceClassification
from stratified_models.testing import tiny_backbone, tiny_model
from tests.stratified_models.conftest import DOMAINS, VARIANTS, Build, largest, move_

NAMES = ("logits", "domain_logits", "energy")
SHAPES = ((3, 10), (1, 4), (6, 50))


class Plain(nn.Module):
    """What a service runs: token ids, mask and domain in, plain tensors out."""

    def __init__(self, model: StratifiedForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, domain_id: Tensor) -> tuple[Tensor, ...]:
        out = self.model(input_ids, attention_mask, domain_id=domain_id)
        found = [out[name] for name in NAMES]
        return (*found, out.occupancy, out.geometry) if out.strata is not None else tuple(found)


def example(rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(5, 300, (rows, tokens))
    ids[:, 0] = 2
    mask = torch.ones_like(ids)
    mask[-1, tokens // 2 + 1 :] = 0
    return ids, mask, torch.arange(rows) % 4 - 1


def export(model: StratifiedForSequenceClassification) -> torch.export.ExportedProgram:
    rows, tokens = torch.export.Dim("rows", max=512), torch.export.Dim("tokens", min=3, max=128)
    shapes = ({0: rows, 1: tokens}, {0: rows, 1: tokens}, {0: rows})
    return torch.export.export(Plain(model), example(3, 10), dynamic_shapes=shapes, strict=True)


Exported = tuple[Plain, torch.export.ExportedProgram]


@pytest.fixture(scope="module", params=VARIANTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A three-block model, for tracing takes long, and its graph."""
    folder = tiny_backbone(tmp_path_factory.mktemp("export"), layers=3)
    model = move_(tiny_model(folder, variant=request.param, domains=DOMAINS)).prepare_for_inference()
    return Plain(model), export(model)


@pytest.mark.slow
def test_invariant_17_strict_export_agrees_at_other_shapes(exported: Exported) -> None:
    plain, program = exported
    graph = program.module()
    for rows, tokens in SHAPES:
        given = example(rows, tokens)
        with torch.no_grad():
            for found, expected in zip(graph(*given), plain(*given), strict=True):
                assert largest(found, expected) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_activation_checkpointing_changes_nothing(
    variant: str, build: Build, batch: dict[str, Tensor]
) -> None:
    found = []
    for checkpointing in (False, True):
        model = build(variant, moved=True, dropout=0.0, domain_dropout=0.0).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable()
        out = model(**batch)
        out.loss.backward()
        loads = [buffer.clone() for name, buffer in model.named_buffers() if name.endswith(".load")]
        found.append((out.loss.detach(), {n: p.grad for n, p in model.named_parameters()}, loads))
    (loss, gradients, loads), (loss2, gradients2, loads2) = found
    assert torch.equal(loss, loss2)
    assert all(
        torch.equal(a, b) for a, b in zip(loads, loads2, strict=True)
    )  # recomputation counts nothing twice
    assert all(largest(gradients[name], gradients2[name]) < 1e-6 for name in gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_autocast_stays_near(variant: str, build: Build, batch: dict[str, Tensor]) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        plain = model(**batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = model(**batch)
    assert largest(plain.logits, cast.logits.float()) < 0.25
    assert cast.loss.dtype == torch.float32
    if plain.occupancy is not None:
        assert largest(plain.occupancy, cast.occupancy) < 0.05
