"""Two dimensions to look at: the plane of largest variance. It knows no plot."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratified_models.errors import ModelError

__all__ = ["principal_plane"]


def principal_plane(points: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Coordinates (M, 2) of `points` (M, D) in their first two principal axes, and their share of variance.

    Each axis has its entry of largest magnitude positive, so the same data look the same everywhere.

    Raises:
        ModelError: fewer than 2 points or coordinates.
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ModelError(f"points of shape {x.shape} span no plane; give at least 2 rows and 2 columns")
    x = x - x.mean(axis=0)
    values, axes = np.linalg.eigh(x.T @ x)
    plane = axes[:, ::-1][:, :2]
    plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    total = float(values.sum())
    return x @ plane, float(values[-2:].sum() / total) if total > 0 else 1.0
