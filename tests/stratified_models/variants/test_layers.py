"""Depth: gates between 0 and 2, FiLM, and a mixture of hidden states whose weights sum to 1."""

from __future__ import annotations

import torch

from stratified_models.hooks import FEED_FORWARD, Strata
from stratified_models.variants.layers import LayersBlock, StratifiedLayers
from tests.stratified_models.conftest import Build, largest


def strata(k: int = 3) -> Strata:
    p = torch.softmax(torch.randn(2, 5, k), -1)
    return Strata(p, p, torch.ones(2, 5, dtype=torch.bool))


def test_depth_and_film_are_the_formulas() -> None:
    block = LayersBlock(width=6, strata=3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    known, x = strata(), torch.randn(2, 5, 6)
    p = known.queries
    gate = 2 * torch.sigmoid((p * block.depths[FEED_FORWARD]).sum(-1))
    assert largest(block.depth(x, known, FEED_FORWARD), gate[..., None] * x) < 1e-6
    gain, shift = p @ block.gain[FEED_FORWARD], p @ block.shift[FEED_FORWARD]
    assert largest(block.film(x, known, FEED_FORWARD), x * (1 + gain) + shift) < 1e-6


def test_mixture_is_affine_for_any_weights(build: Build) -> None:
    variant = build("layers", moved=True).variant
    assert isinstance(variant, StratifiedLayers)
    with torch.no_grad():
        variant.mixing.mul_(30)
    known, same = strata(8), torch.randn(2, 5, 32)
    assert largest(variant.mix([same] * 5, known), same) < 1e-4
    states = [torch.randn(2, 5, 32) for _ in range(5)]
    weights = known.queries @ variant.mixing
    expected = states[-1] + sum(weights[..., j, None] * (states[j] - states[-1]) for j in range(4))
    assert largest(variant.mix(states, known), expected) < 1e-3
