"""What a score usually is at a text's length, and by how much it scatters there.

A line over the logarithm of the number of tokens, bent below ten tokens, where a mean of token states moves
away from all others faster than a line can follow. The line is that of whole rows; the bend is fitted to
short rows and to short windows of longer ones (`windows`), so that a domain whose rows are all long has a say
in it. It does not know what the score is.

M rows, B rows, V windows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stratified_models.windows import SHORT

__all__ = ["COLUMNS", "LengthFit", "basis", "fit_lengths"]

COLUMNS = 4  # of the basis: two of the line, two of the bend
FEWEST = 50  # short texts: of fewer nothing is learned, and the line goes on
LEAST_SPREAD = 0.2  # of the mean spread: where few rows are of a length, a line can cross 0
TO_DEVIATION = 1.2533  # √(π/2): of a normal variable, standard deviation over mean absolute deviation


class LengthFit(NamedTuple):
    """Coefficients of the usual value and of the spread over `basis`, (4,) each, and the least spread, ()."""

    usual: Tensor
    spread: Tensor
    least: Tensor


def basis(tokens: Tensor) -> Tensor:
    """1, log n, b and b² of n `tokens` (B,), each ≥ 1, where b is max(0, log 10/n), (B, 4)."""
    log = tokens.log()
    bend = (torch.full_like(log, SHORT).log() - log).clamp(min=0)
    return torch.stack([torch.ones_like(log), log, bend, bend.square()], dim=-1)


def fit_lengths(tokens: Tensor, values: Tensor, short: tuple[Tensor, Tensor] | None = None) -> LengthFit:
    """Fit to `tokens` and `values` of a score of rows, (M,) each, and of `short` windows, (V,) each."""
    at = basis(tokens)
    line = _solve(at[:, :2], values)
    off = (values - at[:, :2] @ line).abs() * TO_DEVIATION
    widths = _solve(at[:, :2], off)
    few = tokens < SHORT
    brief, found = at[few], values[few]
    if short is not None:
        brief, found = torch.cat([brief, basis(short[0])]), torch.cat([found, short[1]])
    bend, widening = torch.zeros_like(line), torch.zeros_like(widths)
    if len(brief) >= FEWEST:
        left = found - brief[:, :2] @ line
        bend = _solve(brief[:, 2:], left)
        wide = (left - brief[:, 2:] @ bend).abs() * TO_DEVIATION
        widening = _solve(brief[:, 2:], wide - brief[:, :2] @ widths)
    least = (LEAST_SPREAD * off.mean()).clamp(min=1e-6)
    return LengthFit(torch.cat([line, bend]), torch.cat([widths, widening]), least)


def _solve(columns: Tensor, values: Tensor) -> Tensor:
    """Least squares; by the pseudoinverse, since rows may all be of one length."""
    found: Tensor = torch.linalg.pinv(columns) @ values
    return found
