"""Rounding a matrix: what its product loses, against each weight rounded by itself."""

from __future__ import annotations

import numpy as np
import pytest

from stratified_models.onnx_rounding import compensated, nearest

LEVELS = 63


def activations(rows: int = 2000, width: int = 40) -> np.ndarray:
    """Columns of unlike sizes that go together, and do not lie around zero."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(width, width)) * np.geomspace(0.1, 10, width)
    return random.normal(size=(rows, width)) @ mixing + 3 * random.normal(size=width)


def weights(width: int = 40, outputs: int = 7) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(width, outputs)).astype(np.float32)


def lost(x: np.ndarray, w: np.ndarray, whole: np.ndarray, step: np.ndarray) -> float:
    return float(np.square(x @ (whole * step.astype(np.float64) - w)).mean())


def test_less_is_lost_than_by_rounding_each_weight_to_the_nearest() -> None:
    x, w = activations(), weights()
    mine, plain = compensated(w, x.T @ x, LEVELS), nearest(w, LEVELS, axis=0)
    assert lost(x, w, *mine) < 0.5 * lost(x, w, *plain)
    unseen = activations(rows=3000)[2000:]
    assert lost(unseen, w, *mine) < 0.6 * lost(unseen, w, *plain)
    np.testing.assert_array_equal(mine[1], plain[1])
    assert np.abs(mine[0]).max() <= LEVELS


def test_with_more_rows_than_a_block_what_lies_behind_it_makes_up_too() -> None:
    x, w = activations(rows=4000, width=200), weights(width=200)
    mine, plain = compensated(w, x.T @ x, LEVELS), nearest(w, LEVELS, axis=0)
    assert lost(x, w, *mine) < 0.5 * lost(x, w, *plain)


def test_columns_that_do_not_go_together_cannot_make_up_for_each_other() -> None:
    w = weights()
    mine, plain = compensated(w, np.diag(np.arange(1.0, 41.0)), LEVELS), nearest(w, LEVELS, axis=0)
    np.testing.assert_array_equal(mine[0], plain[0])


@pytest.mark.parametrize("silent", [slice(0, 3), slice(None)])
def test_columns_without_values_do_no_harm(silent: slice) -> None:
    x, w = activations(), weights()
    x[:, silent] = 0
    whole, step = compensated(w, x.T @ x, LEVELS)
    assert np.isfinite(step).all()
    assert lost(x, w, whole, step) <= lost(x, w, *nearest(w, LEVELS, axis=0))


def test_an_empty_column_of_weights_stays_empty() -> None:
    x, w = activations(), weights()
    w[:, 2] = 0
    whole, _ = compensated(w, x.T @ x, LEVELS)
    assert not whole[:, 2].any()


def test_what_is_whole_already_stays_as_it_is() -> None:
    x = activations()
    w = np.random.default_rng(2).integers(-LEVELS, LEVELS + 1, (40, 5)).astype(np.float32)
    w[0] = LEVELS
    whole, step = compensated(w, x.T @ x, LEVELS)
    np.testing.assert_array_equal(whole, w)
    np.testing.assert_array_equal(step, np.ones((1, 5)))
