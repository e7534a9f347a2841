"""The domain head: its weights, its dropout, its gradients, and ruling out absent classes."""

from __future__ import annotations

import torch
from torch import Tensor

from stratified_models.domains import ABSENT_IN_TRAINING, DomainHead
from tests.stratified_models.conftest import Build, largest


def head(*, dropout: float = 0.5, bias: bool = True) -> DomainHead:
    made = DomainHead(
        width=6, domains=3, classes=3, allowed=[[0, 2], [0, 1, 2], [1]], bias=bias, dropout=dropout
    )
    made.initialise_()
    with torch.no_grad():
        made.weight.normal_()
    return made


def gradient(tensor: Tensor) -> Tensor | None:
    return tensor.grad


def test_given_ids_are_certain_and_others_inferred() -> None:
    made, pooled = head().train(False), torch.randn(4, 6)
    reading = made(pooled, torch.tensor([1, -1, 99, 0]))
    assert torch.equal(reading.weights[0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(reading.weights[1:3], torch.softmax(reading.logits[1:3], -1).detach())
    assert reading.known.tolist() == [True, False, False, True]
    assert largest(reading.energy, -torch.logsumexp(pooled @ made.weight.T, -1)) < 1e-5


def test_dropout_hides_half_of_the_ids_and_repeats_with_the_seed() -> None:
    made, pooled, ids = head(), torch.randn(2000, 6), torch.zeros(2000, dtype=torch.long)
    torch.manual_seed(5)
    one = made(pooled, ids)
    torch.manual_seed(5)
    two = made(pooled, ids)
    assert torch.equal(one.weights, two.weights)
    hidden = float((one.weights[:, 0] != 1).float().mean())
    assert 0.4 < hidden < 0.6
    assert bool(one.known.all())  # the head's own loss still sees every id


def test_no_gradient_from_sentiment_to_head_nor_from_domains_to_encoder() -> None:
    made, pooled = head(), torch.randn(4, 6, requires_grad=True)
    reading = made(pooled, None)
    torch.autograd.backward(made.add_bias(torch.zeros(4, 3), reading.weights).sum())
    assert gradient(made.weight) is None
    made(pooled, None).logits.sum().backward()
    assert gradient(made.weight) is not None
    assert gradient(pooled) is None


def test_bias_can_be_switched_off() -> None:
    made = head(bias=False)
    logits = torch.randn(4, 3)
    assert made.add_bias(logits, torch.ones(4, 3)) is logits
    assert "class_bias" not in dict(made.named_parameters())


def test_absent_classes_are_ruled_out_in_training_and_at_inference() -> None:
    made, logits, ids = head(dropout=0.0), torch.zeros(3, 3), torch.tensor([0, 2, -1])
    trained = made.rule_out_absent(logits, made(torch.randn(3, 6), ids), ids)
    assert trained[0].tolist() == [0, ABSENT_IN_TRAINING, 0]
    assert trained[2].tolist() == [0, 0, 0]
    assert made.rule_out_absent(logits, made(torch.randn(3, 6), None), None) is logits
    made.train(False)
    served = torch.softmax(made.rule_out_absent(logits, made(torch.randn(3, 6), ids), ids), -1)
    assert float(served[0, 1]) < 1e-3
    assert float(served[1, 1]) > 0.99


def test_masking_reaches_loss_and_logits_of_the_model(build: Build, batch: dict[str, Tensor]) -> None:
    model = build("none", mask_absent_labels=True, domain_labels=[[0, 2], [0, 1, 2], [0, 1, 2]])
    out = model.train(False)(**{**batch, "domain_id": torch.zeros(8, dtype=torch.long)})
    assert bool((out.logits.argmax(-1) != 1).all())
