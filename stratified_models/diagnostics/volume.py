"""Does a neighbourhood look like a manifold, or at least like a fibre bundle? A test by volume and radius.

On a d-dimensional manifold the number v of points within radius r of a point grows as r^d: log v on log r is
a line. On a fibre bundle (signal dimensions plus smaller noise dimensions) the slope may fall as r outgrows
the noise, but never rise. A slope that changes rejects the first, a slope that rises rejects both (Robinson,
Dey, Chiang, "Token embeddings violate the manifold hypothesis", arXiv:2504.01002).

What is implemented, after the abstract and the estimator that its authors published
(github.com/kb1dds/stratified_estimator): radii r_v of the v-th neighbour for v = `smallest` … `largest`;
pointwise slopes by three-point centred differences of log v and log r; at each v a Welch t-test (two-sided)
between the slopes in the windows [v − 2w, v − w) and [v + w, v + 2w); rejection where some p < α. Slopes that
are not finite (ties) are left out. What is not: curvature, debiasing, the segmentation into several strata
(any window decides), and a correction for the many overlapping windows.

Under the null the pointwise slope is 2d/(E₁+E₂) with standard exponentials: mean 2d, no finite variance. The
t-test is therefore not exact, and with many windows some token always rejects: measure its false alarms on a
known manifold of like size and dimension (`null_test`), and report them beside every share, or take α from
their quantile. Failing to reject says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from stratified_models.diagnostics.dimension import nearest_distances
from stratified_models.diagnostics.special import t_two_sided
from stratified_models.errors import ModelError

__all__ = ["ALPHA", "VolumeTest", "null_test", "volume_radius_test"]

Array = NDArray[np.float64]
ALPHA = 1e-3
FLAT = 1e-5


class VolumeTest(NamedTuple):
    """The test at each of Q points.

    Attributes:
        p_manifold: smallest p over the windows, (Q,).
        p_bundle: smallest p over the windows where the slope rises; 1 where it never does, (Q,).
        near, far: dimension: slope of log v on log r over the lower and upper half of the volumes, (Q,).
    """

    p_manifold: Array
    p_bundle: Array
    near: Array
    far: Array

    def rates(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Shares of points that reject the manifold, and the fibre bundle."""
        return float((self.p_manifold < alpha).mean()), float((self.p_bundle < alpha).mean())


def volume_radius_test(
    points: ArrayLike,
    *,
    queries: ArrayLike | None = None,
    smallest: int = 10,
    largest: int = 200,
    window: int = 10,
) -> VolumeTest:
    """Test the neighbourhood of each query in `points` (M, D); without queries, of each point.

    Args:
        points: the cloud.
        queries: (Q, D) points of the cloud; each of them stands in it, so its distance 0 is left out.
        smallest, largest: range of neighbour counts; the paper's volumes.
        window: slopes on either side, and half the gap between the sides.

    Raises:
        ModelError: fewer than `largest` + 1 points, or a range too short for the windows.
    """
    if smallest < 1 or window < 2 or largest - smallest + 1 < 4 * window:
        raise ModelError(
            f"volumes {smallest} … {largest} with windows of {window} leave nothing to compare; "
            f"set largest ≥ {smallest + 4 * window - 1}"
        )
    if queries is None:
        radii = nearest_distances(points, largest)
    else:
        radii = nearest_distances(points, largest + 1, queries=queries)[:, 1:]
    return _test(radii[:, smallest - 1 :], smallest, window)


def _test(radii: Array, smallest: int, window: int) -> VolumeTest:
    """The test of sorted radii (Q, V) whose first column holds `smallest` neighbours."""
    volumes = np.log(np.arange(smallest, smallest + radii.shape[1], dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(radii)
        slopes = np.gradient(volumes) / np.gradient(logs, axis=1)  # (Q, V)
    usable = np.isfinite(slopes) & (np.abs(slopes) > FLAT)
    count, mean, variance = _windows(np.where(usable, slopes, 0.0), usable, window)
    shift = 3 * window  # from the start of the lower window to the start of the upper one
    p, rise = _welch(
        (count[:, :-shift], mean[:, :-shift], variance[:, :-shift]),
        (count[:, shift:], mean[:, shift:], variance[:, shift:]),
    )
    half = radii.shape[1] // 2
    return VolumeTest(
        p_manifold=p.min(axis=1),
        p_bundle=np.where(rise, p, 1.0).min(axis=1),
        near=_slope(logs[:, :half], volumes[:half]),
        far=_slope(logs[:, half:], volumes[half:]),
    )


def _windows(slopes: Array, usable: NDArray[np.bool_], window: int) -> tuple[Array, Array, Array]:
    """Count, mean and sample variance of the usable slopes in every window, each (Q, V − w + 1)."""
    values, kept = sliding_window_view(slopes, window, axis=1), sliding_window_view(usable, window, axis=1)
    count = kept.sum(axis=-1).astype(np.float64)
    mean = values.sum(axis=-1) / np.maximum(count, 1)
    spread = np.where(kept, values - mean[..., None], 0.0)
    return count, mean, np.square(spread).sum(axis=-1) / np.maximum(count - 1, 1)


def _welch(lower: tuple[Array, ...], upper: tuple[Array, ...]) -> tuple[Array, NDArray[np.bool_]]:
    """p of equal means (1 where a side has under two slopes), and whether the upper mean is the larger."""
    (n1, m1, v1), (n2, m2, v2) = lower, upper
    enough = np.asarray((n1 > 1) & (n2 > 1))
    e1, e2 = v1 / np.maximum(n1, 1), v2 / np.maximum(n2, 1)
    error = np.maximum(e1 + e2, 1e-300)
    # Divided through by the sum, so that tiny variances do not underflow when squared.
    f1, f2 = e1 / error, e2 / error
    freedom = 1 / np.maximum(f1**2 / np.maximum(n1 - 1, 1) + f2**2 / np.maximum(n2 - 1, 1), 1e-12)
    p = t_two_sided((m2 - m1) / np.sqrt(error), np.minimum(freedom, 1e6))
    return np.where(enough & (m1 != m2), p, 1.0), np.asarray(m2 > m1)


def _slope(x: Array, y: Array) -> Array:
    """Least-squares slope of y (V,) on each row of x (Q, V); rows with a zero radius give 0."""
    good: NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
    x = np.where(good[:, None], x, 0.0)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    slope = (x @ y) / np.maximum(np.sum(x * x, axis=1), 1e-300)
    return np.asarray(np.where(good, slope, 0.0))


def null_test(
    dimension: float,
    points: int,
    *,
    queries: int = 400,
    seed: int = 0,
    smallest: int = 10,
    largest: int = 200,
    window: int = 10,
) -> VolumeTest:
    """The test where the null is true: on a Gaussian of `dimension` (rounded) with so many `points`.

    Its rejections are the test's own false alarms *and* what a density that falls outwards does to it, so the
    share of a cloud means something only above them. A quantile of its p-values is a calibrated α.
    """
    rng = np.random.default_rng(seed)
    cloud = rng.standard_normal((points, max(1, round(dimension))))
    asked = cloud[rng.permutation(points)[: min(queries, points)]]
    return volume_radius_test(cloud, queries=asked, smallest=smallest, largest=largest, window=window)
