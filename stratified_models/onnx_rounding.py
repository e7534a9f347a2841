"""Rounds a matrix so that what its product loses on usual activations is least, not each weight's own error.

Rounding to the nearest leaves every weight's error to add up along a row of activations. GPTQ (Frantar et al.
2022, arXiv:2210.17323, algorithm 1) goes through the matrix row by row and lets the rows that are still to
come make up for what was lost, as far as activations go together. The file is as large and as fast as before.

W (F, G) are a product's weights, X (n, F) its activations. It knows numpy alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["compensated", "nearest"]

BLOCK = 128  # rows after which all later ones are made up at once, as in the paper
DAMPING = 0.01  # of the mean second moment, added to all: the paper's
TINY = 1e-9

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int8]


def nearest(values: Floats, levels: int, *, axis: int) -> tuple[Whole, Floats]:
    """`values` as whole numbers of −levels … levels, and the step of each slice along `axis`."""
    step = np.maximum(np.abs(values).max(axis=axis, keepdims=True), TINY) / levels
    return np.round(values / step).astype(np.int8), step.astype(np.float32)


def compensated(weight: Floats, moments: Doubles, levels: int) -> tuple[Whole, Floats]:
    """Whole numbers (F, G) and a step for each column (1, G), so that ‖X W − X Ŵ‖ is small.

    Args:
        weight: W.
        moments: Σ xᵀx over the rows of X, (F, F).
        levels: the largest whole number on either side of zero.
    """
    # What weighs most is rounded first, while all the others can still make up for it.
    order = np.argsort(-np.diag(moments), kind="stable")
    upper = _inverse_root(moments[np.ix_(order, order)])
    left = weight[order].astype(np.float64)
    step = np.maximum(np.abs(left).max(axis=0), TINY) / levels
    whole = np.zeros(weight.shape, np.int8)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        lost = np.zeros((end - start, weight.shape[1]))
        for row in range(start, end):
            rounded = np.clip(np.round(left[row] / step), -levels, levels)
            whole[order[row]] = rounded
            lost[row - start] = (left[row] - rounded * step) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], lost[row - start])
        left[end:] -= upper[start:end, end:].T @ lost
    return whole, step[None].astype(np.float32)


def _inverse_root(moments: Doubles) -> Doubles:
    """U of moments⁻¹ = Uᵀ U, upper triangular; damped, so that columns without values do no harm."""
    damped = moments.copy()
    damped[np.diag_indices(len(damped))] += DAMPING * np.diag(moments).mean() + TINY
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
