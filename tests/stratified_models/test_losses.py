"""The loss terms against torch's own, at their edges, and as parts of a global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stratified_models import losses


def test_classification_is_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, -100, 1, 0])
    for smoothing in (0.0, 0.1):
        found = losses.classification(
            logits=logits, labels=labels, count=torch.tensor(5.0), smoothing=smoothing
        )
        assert torch.allclose(found, F.cross_entropy(logits, labels, label_smoothing=smoothing))


def test_domain_counts_known_rows_alone() -> None:
    logits, ids = torch.randn(4, 3), torch.tensor([2, -1, 0, -1])
    known = ids >= 0
    found = losses.domain(logits=logits, domain_id=ids, known=known, count=known.sum())
    assert torch.allclose(found, F.cross_entropy(logits[known], ids[known]))


def test_without_known_rows_the_domain_loss_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    ids = torch.full((4,), -1)
    loss = losses.domain(logits=logits, domain_id=ids, known=ids >= 0, count=torch.tensor(0))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not bool(logits.grad.any())


def test_geometry_is_the_mean_per_coordinate() -> None:
    log_likelihood, content = torch.randn(2, 5), torch.rand(2, 5) > 0.4
    found = losses.geometry(
        log_likelihood=log_likelihood, content=content, coordinates=4, count=content.sum()
    )
    assert torch.allclose(found, -log_likelihood[content].mean() / 4)


def test_without_content_geometry_is_zero() -> None:
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    found = losses.geometry(
        log_likelihood=torch.randn(2, 5), content=nothing, coordinates=4, count=torch.tensor(0)
    )
    assert float(found) == 0


def test_invariant_14_balance_is_one_at_uniform_half_the_experts_at_collapse() -> None:
    tokens, experts = torch.tensor(100.0), 4
    uniform = torch.full((1, experts), 25.0)
    even_load = torch.full((1, experts), 50.0)
    assert torch.isclose(losses.balance(load=even_load, probability=uniform, count=tokens), torch.tensor(1.0))
    collapsed_load = torch.tensor([[100.0, 100.0, 0.0, 0.0]])
    certain = torch.tensor([[50.0, 50.0, 0.0, 0.0]])
    assert torch.isclose(
        losses.balance(load=collapsed_load, probability=certain, count=tokens), torch.tensor(2.0)
    )
    # and it cannot see selection collapse under uniform probabilities
    assert torch.isclose(
        losses.balance(load=collapsed_load, probability=uniform, count=tokens), torch.tensor(1.0)
    )


def test_balance_is_the_mean_over_blocks() -> None:
    load, probability = torch.rand(2, 4), torch.rand(2, 4)
    both = losses.balance(load=load, probability=probability, count=torch.tensor(7.0))
    each = [
        losses.balance(load=load[i : i + 1], probability=probability[i : i + 1], count=torch.tensor(7.0))
        for i in (0, 1)
    ]
    assert torch.isclose(both, (each[0] + each[1]) / 2)


def test_counts_between_zero_and_one_are_kept() -> None:
    counts = torch.tensor([0.0, 0.5, 3.0])
    assert losses.safe_count(counts).tolist() == [1.0, 0.5, 3.0]
