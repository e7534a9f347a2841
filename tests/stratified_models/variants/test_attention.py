"""Lengthened heads are the explicit temperature and affinity (invariant 12); the output subspace too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratified_models.backbone import scaled_attention
from stratified_models.hooks import Strata
from stratified_models.variants.attention import AttentionBlock
from tests.stratified_models.conftest import largest

B, T, H, SIZE, K = 2, 7, 3, 5, 4


@pytest.fixture
def block() -> AttentionBlock:
    made = AttentionBlock(width=H * SIZE, heads=H, widths=(1, 2, 3, 1)).double()
    made.initialise_()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def strata() -> Strata:
    p = torch.softmax(torch.randn(B, T, K, dtype=torch.float64), -1)
    return Strata(p, p, torch.ones(B, T, dtype=torch.bool))


@pytest.mark.parametrize("causal", [False, True])
def test_invariant_12_scores_are_temperature_and_affinity(block: AttentionBlock, causal: bool) -> None:
    q, k, v = (torch.randn(B, H, T, SIZE, dtype=torch.float64) for _ in range(3))
    known = strata()
    mask = torch.ones(B, 1, T, T, dtype=torch.bool)
    mask[1, :, :, 5:] = False
    if causal:
        mask = mask & torch.ones(T, T, dtype=torch.bool).tril()
    longer = block.heads(q, k, v, known)
    found = scaled_attention(*longer, mask, scale=SIZE**-0.5, dropout=0.0)
    p = known.queries
    heat = torch.exp(torch.einsum("btk,kh->bht", p, block.temperature))[..., None]
    bias = torch.einsum("bik,hkl,bjl->bhij", p, block.affinity, p)
    scores = (heat * (q @ k.mT) * SIZE**-0.5 + bias).masked_fill(~mask, -torch.inf)
    expected = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
    assert largest(found, expected) < 1e-12


def test_output_subspace_is_the_sum_over_strata(block: AttentionBlock) -> None:
    known, y = strata(), torch.randn(B, T, H * SIZE, dtype=torch.float64)
    expected: Tensor = y.clone()
    for k in range(K):
        own = block.column == k
        expected = expected + known.queries[..., k, None] * (y @ block.down[own].T @ block.up[:, own].T)
    assert largest(block.attended(y, known), expected) < 1e-12


def test_the_first_position_alone_is_as_among_all(block: AttentionBlock) -> None:
    q, k, v = (torch.randn(B, H, T, SIZE, dtype=torch.float64) for _ in range(3))
    known, mask = strata(), torch.ones(B, 1, 1, T, dtype=torch.bool)
    every = scaled_attention(*block.heads(q, k, v, known), mask, scale=0.4, dropout=0.0)
    first = scaled_attention(*block.heads(q[:, :, :1], k, v, known.first()), mask, scale=0.4, dropout=0.0)
    assert largest(first, every[:, :1]) < 1e-12
