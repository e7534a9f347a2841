"""Student's t without scipy: its two-sided tail, for whole arrays. It knows no test that needs it.

The regularised incomplete beta function is evaluated by its continued fraction with Lentz's method (Press et
al., Numerical Recipes, §6.4).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["t_two_sided"]

Array = NDArray[np.float64]
TINY = 1e-300
ROUNDS = 200

_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


def t_two_sided(t: Array, freedom: Array) -> Array:
    """P(|T| ≥ |t|) of Student's t with `freedom` > 0 degrees of freedom, elementwise."""
    square = np.square(np.asarray(t, dtype=np.float64))
    nu = np.asarray(freedom, dtype=np.float64)
    x = nu / (nu + square)
    return np.asarray(np.clip(_incomplete_beta(x, nu / 2, np.full_like(nu, 0.5)), 0.0, 1.0))


def _incomplete_beta(x: Array, a: Array, b: Array) -> Array:
    """I_x(a, b); the fraction converges fast for x < (a+1)/(a+b+2), so elsewhere 1 − I_{1−x}(b, a)."""
    swap = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    with np.errstate(divide="ignore"):
        front = _lgamma(p + q) - _lgamma(p) - _lgamma(q) + p * np.log(y) + q * np.log1p(-y)
    value = np.exp(front) * _fraction(y, p, q) / p
    return np.asarray(np.where(swap, 1 - value, value))


def _fraction(x: Array, a: Array, b: Array) -> Array:
    c = np.ones_like(x)
    d = 1 / _away(1 - (a + b) * x / (a + 1))
    h = d.copy()
    for m in range(1, ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            h *= c * d
        if np.all(np.abs(c * d - 1) < 1e-12):
            break
    return h


def _away(value: Array) -> Array:
    """`value`, kept away from zero."""
    return np.asarray(np.where(np.abs(value) < TINY, TINY, value))
