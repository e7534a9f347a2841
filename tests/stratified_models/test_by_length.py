"""A line over log tokens, bent for short texts: known coefficients are found, and few rows bend nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratified_models.by_length import FEWEST, LengthFit, basis, fit_lengths


def lengths(rows: int, least: float, most: float, *, seed: int = 0) -> Tensor:
    """Whole numbers, even on a logarithmic scale."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(rows, dtype=torch.double).uniform_(
        math.log(least), math.log(most), generator=generator
    )
    return drawn.exp().round()


def at(fit: LengthFit, tokens: list[float]) -> tuple[Tensor, Tensor]:
    """Usual values and spreads."""
    columns = basis(torch.tensor(tokens, dtype=torch.double))
    return columns @ fit.usual, columns @ fit.spread


def test_a_line_is_found_and_goes_on_where_there_are_few_short_texts() -> None:
    tokens = lengths(2000, 12, 300)
    noise = torch.randn(2000, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    fit = fit_lengths(tokens, 3 - 0.5 * tokens.log() + 0.2 * noise)
    usual, spread = at(fit, [2, 20, 200])
    assert usual.tolist() == pytest.approx([3 - 0.5 * math.log(n) for n in (2, 20, 200)], abs=0.1)
    assert spread.tolist() == pytest.approx([0.2] * 3, abs=0.06)
    assert fit.usual[2:].tolist() == fit.spread[2:].tolist() == [0, 0]


def test_windows_bend_it_below_ten_tokens_and_nowhere_else() -> None:
    tokens = lengths(2000, 12, 300)
    short = lengths(1000, 1, 9, seed=2)
    generator = torch.Generator().manual_seed(1)
    found = 1 + 2 * (10 / short).log() + torch.randn(1000, dtype=torch.double, generator=generator) / short
    plain = fit_lengths(tokens, torch.ones_like(tokens))
    bent = fit_lengths(tokens, torch.ones_like(tokens), (short, found))
    assert torch.equal(plain.usual[:2], bent.usual[:2])
    assert at(bent, [10, 300])[0].tolist() == pytest.approx([1, 1], abs=1e-6)
    usual, spread = at(bent, [1, 4])
    assert usual.tolist() == pytest.approx([1 + 2 * math.log(10 / n) for n in (1, 4)], abs=0.2)
    assert float(spread[0]) > 2 * float(spread[1]) > 0


def test_short_rows_bend_it_themselves_where_there_are_enough() -> None:
    tokens = torch.cat([lengths(500, 12, 300), lengths(FEWEST, 1, 9, seed=3)])
    values = torch.where(tokens < 10, 5.0, 1.0).double()
    assert float(fit_lengths(tokens, values).usual[2:].abs().sum()) > 0
    assert float(fit_lengths(tokens[:-1], values[:-1]).usual[2:].abs().sum()) == 0


def test_rows_of_one_length_have_a_level() -> None:
    fit = fit_lengths(torch.full((80,), 20.0).double(), torch.full((80,), 4.0).double())
    assert at(fit, [20])[0].tolist() == pytest.approx([4])
    assert float(fit.least) == 1e-6
