"""The volume–radius test where the answer is known: manifolds, a bundle, and strata that meet."""

import numpy as np
import pytest

from stratified_models import diagnostics
from stratified_models.diagnostics.special import t_two_sided
from stratified_models.errors import ModelError


@pytest.fixture
def rng() -> np.random.Generator:
    """The same draws for each test, whichever ran before it."""
    return np.random.default_rng(2)


@pytest.mark.parametrize("freedom", [1.0, 1.5, 9.0, 18.0, 1e5])
def test_student_tail_is_that_of_scipy(freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    t = np.linspace(-20, 20, 201)
    np.testing.assert_allclose(
        t_two_sided(t, np.full_like(t, freedom)), 2 * stats.t.sf(np.abs(t), freedom), rtol=1e-8, atol=1e-300
    )


@pytest.mark.parametrize("dimension", [2, 10])
def test_a_gaussian_seldom_rejects(dimension: int) -> None:
    manifold, bundle = diagnostics.null_test(dimension, 1500, queries=300).rates()
    assert manifold < 0.3  # 150 overlapping windows at 1e-3: this is why shares are compared with the null
    assert bundle < 0.2
    assert bundle <= manifold


def test_slopes_of_a_flat_torus_are_its_dimension(rng: np.random.Generator) -> None:
    angle = rng.uniform(0, 2 * np.pi, (2500, 2))
    found = diagnostics.volume_radius_test(np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    assert np.median(found.near) == pytest.approx(2, abs=0.15)
    assert np.median(found.far) == pytest.approx(2, abs=0.15)


def test_a_line_that_meets_a_sphere_rejects_where_they_meet_and_not_on_the_line(
    rng: np.random.Generator,
) -> None:
    line = np.zeros((3000, 3))
    line[:, 0] = np.linspace(0, 5, 3000)
    meeting = []
    for _ in range(
        8
    ):  # how the sphere's points lie about the tangent point decides much: one draw says little
        sphere = rng.standard_normal((1500, 3))
        sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
        sphere[:, 0] -= 1
        both = np.concatenate([sphere, line])
        meeting.append(diagnostics.volume_radius_test(both, queries=both[1510:1560]).rates())
        assert diagnostics.volume_radius_test(both, queries=both[2800:2900]).rates() == (0.0, 0.0)
    manifold, bundle = np.mean(meeting, axis=0)
    assert manifold > 0.9
    # A line into a surface: more and more points come in, the slope rises, no bundle allows that.
    assert bundle > 0.2


def test_a_thick_line_rejects_the_manifold_by_a_falling_slope() -> None:
    rng = np.random.default_rng(3)
    line = np.zeros((4000, 5))
    line[:, 0] = rng.random(4000) * 4
    line[:, 1:] = rng.standard_normal((4000, 4)) * 0.05
    found = diagnostics.volume_radius_test(line, queries=line[:400], largest=400, window=40)
    null = diagnostics.null_test(2, 4000, largest=400, window=40)
    alpha = float(np.quantile(null.p_manifold, 0.02))  # calibrated: the null rejects 2 %
    assert np.median(found.near) > 1.5 * np.median(found.far)
    assert found.rates(alpha)[0] > 0.2
    assert found.rates(alpha)[1] < 0.02


def test_agrees_with_a_plain_reading_of_the_definition(rng: np.random.Generator) -> None:
    stats = pytest.importorskip("scipy.stats")
    points = rng.standard_normal((300, 3))
    radii = np.sort(np.linalg.norm(points - points[0], axis=1))[1:][4:90]
    slopes = np.gradient(np.log(np.arange(5, 91))) / np.gradient(np.log(radii))
    lowest, rising = 1.0, 1.0
    for v in range(12, len(slopes) - 12 + 1):
        lower, upper = slopes[v - 12 : v - 6], slopes[v + 6 : v + 12]
        p = stats.ttest_ind(lower, upper, equal_var=False).pvalue
        lowest = min(lowest, p)
        rising = min(rising, p) if upper.mean() > lower.mean() else rising
    found = diagnostics.volume_radius_test(points, smallest=5, largest=90, window=6)
    assert found.p_manifold[0] == pytest.approx(lowest, rel=1e-6)
    assert found.p_bundle[0] == pytest.approx(rising, rel=1e-6)


def test_copies_of_one_point_say_nothing_and_do_not_crash() -> None:
    found = diagnostics.volume_radius_test(np.ones((80, 3)), largest=60)
    assert found.rates() == (0.0, 0.0)
    assert np.all(found.near == 0)


def test_impossible_ranges_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ModelError, match="leave nothing to compare"):
        diagnostics.volume_radius_test(rng.standard_normal((300, 2)), largest=30)
    with pytest.raises(ModelError, match="too few"):
        diagnostics.volume_radius_test(rng.standard_normal((50, 2)))
