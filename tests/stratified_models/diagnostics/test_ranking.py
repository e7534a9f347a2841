"""AUROC and the plane of largest variance."""

import numpy as np
import pytest

from stratified_models import diagnostics
from stratified_models.errors import ModelError


def test_auroc_of_separated_reversed_and_equal_groups() -> None:
    assert diagnostics.auroc([0, 1, 2], [3, 4]) == 1
    assert diagnostics.auroc([3, 4], [0, 1, 2]) == 0
    assert diagnostics.auroc([1, 1], [1, 1, 1]) == 0.5


def test_auroc_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 9, 80), rng.integers(3, 12, 50)
    expected = metrics.roc_auc_score([0] * 80 + [1] * 50, [*low, *high])
    assert diagnostics.auroc(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [([], [1]), ([1], []), ([1], [np.nan])])
def test_auroc_refuses_what_it_cannot_rank(low: list[float], high: list[float]) -> None:
    with pytest.raises(ModelError):
        diagnostics.auroc(low, high)


def test_plane_of_a_plane_holds_everything() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((200, 2)) * [5, 1]
    found, share = diagnostics.principal_plane(flat @ np.linalg.qr(rng.standard_normal((6, 2)))[0].T + 3)
    assert share == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(flat - flat.mean(0), axis=1))
    assert np.var(found[:, 0]) > np.var(found[:, 1])


def test_plane_of_identical_points_and_of_too_few() -> None:
    assert diagnostics.principal_plane(np.ones((4, 3)))[1] == 1
    with pytest.raises(ModelError, match="span no plane"):
        diagnostics.principal_plane(np.ones((1, 3)))
