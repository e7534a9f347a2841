"""The numbered invariant of the diagnostics; their own tests stand in `diagnostics/`."""

from __future__ import annotations

import numpy as np
import pytest

from stratified_models.diagnostics import two_nn


@pytest.mark.parametrize(("dimension", "low", "high"), [(5, 4.7, 5.7), (20, 15.0, 20.0)])
def test_invariant_20_two_nn_finds_the_dimension_of_gaussians(
    dimension: int, low: float, high: float
) -> None:
    points = np.random.default_rng(0).normal(size=(2000, dimension))
    embedded = points @ np.random.default_rng(1).normal(
        size=(dimension, 30)
    )  # the space around does not count
    assert low < two_nn(points) < high
    assert low - 1 < two_nn(embedded) < high + 1
