"""Tokens spread over rows, and a density placed anew: it is that of a gate placed on the same points."""

from __future__ import annotations

import pytest
import torch

from stratified_models.calibration import calibrate_
from stratified_models.fold_density import fit_density, spread_over
from stratified_models.gate import StratumGate, mixture_log_density


def test_tokens_are_spread_over_the_content_of_a_row() -> None:
    hidden = torch.arange(24.0).view(2, 12, 1)
    content = torch.ones(2, 12, dtype=torch.bool)
    content[:, 0] = content[0, 5] = False  # neither at the front nor in the middle
    content[1, 4:] = False
    drawn, there = spread_over(hidden, content, 5)
    assert drawn[0, :, 0].tolist() == [1, 3, 6, 8, 10]
    assert there.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert drawn[1, :3, 0].tolist() == [13, 14, 15]


def test_a_row_without_content_and_one_that_is_shorter_than_the_sample() -> None:
    drawn, there = spread_over(torch.zeros(2, 3, 4), torch.tensor([[False] * 3, [True] * 3]), 8)
    assert drawn.shape == (2, 8, 4)
    assert there.sum(-1).tolist() == [0, 3]


def blobs(rows: int, tokens: int, *, seed: int = 0) -> torch.Tensor:
    """Tokens (rows, tokens, 6) of three blobs."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(rows, tokens, 6, generator=generator)
    found[..., 0] += 8.0 * torch.randint(0, 3, (rows, tokens), generator=generator)
    return found


def test_it_is_the_density_of_a_gate_that_is_calibrated_on_the_same_tokens() -> None:
    points = blobs(60, 10)
    density = fit_density(points, (1, 2, 3), seed=4)
    gate = StratumGate(width=6, coordinates=6, ranks=(1, 2, 3), domains=2)
    gate.initialise_()
    calibrate_(gate, points.flatten(0, 1), seed=4)
    with torch.no_grad():
        at = gate.coordinates_of(blobs(9, 10, seed=1))
        expected = -mixture_log_density(at, gate.computed_terms()).logsumexp(-1).mean(-1) / 6
        assert density is not None
        # The gate's coordinates are scaled to unit variance: densities differ by the scale's logarithm.
        found = density(blobs(9, 10, seed=1)) + gate.scale.double().log()
    assert torch.allclose(found.float(), expected, atol=2e-2)


def test_missing_tokens_do_not_count_and_strange_ones_do() -> None:
    density = fit_density(blobs(60, 10), (1, 2, 3))
    assert density is not None
    asked = blobs(5, 10, seed=1)
    cut = asked.clone()
    cut[:, 6:] = torch.nan
    assert torch.allclose(density(cut), density(asked[:, :6]))
    assert (density(asked + 30) > density(asked) + 10).all()
    assert density(torch.full((2, 10, 6), torch.nan)).tolist() == [0, 0]


def test_too_few_tokens_place_nothing_and_nobodys_random_numbers_are_spent() -> None:
    assert fit_density(blobs(1, 11), (1, 2, 3)) is None
    before = torch.get_rng_state()
    assert fit_density(blobs(1, 12), (1, 2, 3)) is not None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_tokens_and_seed_give_the_same_density(seed: int) -> None:
    first, second = (fit_density(blobs(60, 10), (1, 2, 3), seed=seed) for _ in range(2))
    assert first is not None
    assert second is not None
    asked = blobs(3, 10, seed=9)
    assert torch.equal(first(asked), second(asked))
