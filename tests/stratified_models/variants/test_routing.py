"""Hard routing: each token is changed by the adapter of its likeliest stratum alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stratified_models.hooks import Strata
from stratified_models.variants.routing import RoutingBlock
from tests.stratified_models.conftest import largest


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_each_token_takes_its_likeliest_adapter() -> None:
    block = RoutingBlock(width=6, widths=(2, 3, 4))
    block.initialise_()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x, p = torch.randn(2, 5, 6), torch.softmax(torch.randn(2, 5, 3), -1).requires_grad_()
    found, trace = block.feed_forward(x, double, Strata(p, p, torch.ones(2, 5, dtype=torch.bool)))
    assert trace is None
    for row in range(2):
        for token in range(5):
            k = int(p[row, token].argmax())
            own = block.column == k
            inner = F.gelu(x[row, token] @ block.down[own].T + block.down_bias[own])
            expected = 2 * x[row, token] + p[row, token, k] * (inner @ block.up[:, own].T)
            assert largest(found[row, token], expected) < 1e-5
    torch.autograd.backward(found.sum())
    assert p.grad is not None
    assert bool((p.grad != 0).sum(-1).eq(1).all())  # the gate's gradient comes by the winner alone
