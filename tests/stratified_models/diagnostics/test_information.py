"""Occupancy, effective strata and mutual information, on cases whose answer is known."""

import numpy as np
import pytest

from stratified_models import diagnostics
from stratified_models.errors import ModelError


@pytest.fixture
def rng() -> np.random.Generator:
    """The same draws for each test, whichever ran before it."""
    return np.random.default_rng(0)


def one_hot(ids: np.ndarray, strata: int = 4) -> np.ndarray:
    rows: np.ndarray = np.eye(strata)[ids]
    return rows


def test_entropy_of_uniform_shares_is_log_k_and_of_certain_ones_zero() -> None:
    assert diagnostics.entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8))
    assert diagnostics.entropy([0.0, 1.0]) == 0


def test_effective_strata_lie_between_one_and_k() -> None:
    ids = np.arange(400) % 4
    assert diagnostics.effective_strata(one_hot(ids)) == pytest.approx(4)
    assert diagnostics.token_effective_strata(one_hot(ids)) == pytest.approx(1)
    assert diagnostics.effective_strata(one_hot(np.zeros(9, int))) == pytest.approx(1)
    assert diagnostics.token_effective_strata(np.full((5, 4), 0.25)) == pytest.approx(4)
    np.testing.assert_allclose(diagnostics.occupancy(one_hot(ids)), 0.25)


def test_information_of_identical_labelings_is_their_entropy(rng: np.random.Generator) -> None:
    ids = rng.integers(0, 4, 1000)
    expected = diagnostics.entropy(np.bincount(ids) / 1000)
    assert diagnostics.mutual_information(one_hot(ids), ids) == pytest.approx(float(expected))


def test_information_of_labels_that_the_strata_determine_is_the_labels_entropy(
    rng: np.random.Generator,
) -> None:
    ids = rng.integers(0, 4, 1000)
    labels = ids // 2
    expected = diagnostics.entropy(np.bincount(labels) / 1000)
    assert diagnostics.mutual_information(one_hot(ids), labels) == pytest.approx(float(expected))


def test_information_of_one_label_is_zero(rng: np.random.Generator) -> None:
    assert diagnostics.mutual_information(rng.dirichlet(np.ones(4), 50), np.ones(50)) == 0


def test_information_agrees_with_scikit_learn_on_hard_strata(rng: np.random.Generator) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    ids, labels = rng.integers(0, 4, 500), rng.integers(0, 3, 500)
    expected = metrics.mutual_info_score(ids, labels)
    assert diagnostics.mutual_information(one_hot(ids), labels) == pytest.approx(expected)


def test_independent_labels_do_not_beat_their_permutations(rng: np.random.Generator) -> None:
    # Of independent labels p is uniform: one draw in twenty lies below .05, and half of them above .5.
    draws = [(rng.integers(0, 4, 600), rng.integers(0, 3, 600)) for _ in range(60)]
    found = [diagnostics.permutation_baseline(one_hot(ids), labels, rounds=100) for ids, labels in draws]
    assert all(0 < one.mean < one.upper for one in found)
    assert np.mean([one.p for one in found]) == pytest.approx(0.5, abs=0.12)
    assert np.mean([one.p < 0.05 for one in found]) < 0.15


def test_dependent_labels_beat_their_permutations(rng: np.random.Generator) -> None:
    ids = rng.integers(0, 4, 600)
    found = diagnostics.permutation_baseline(one_hot(ids), ids % 2, rounds=100)
    assert found.observed > 10 * found.upper
    assert found.p == pytest.approx(1 / 101)


def test_tokens_of_one_text_are_no_independent_evidence(rng: np.random.Generator) -> None:
    # 30 texts of 40 tokens, each text all in one stratum, labels at random: by tokens this looks significant.
    owner = np.repeat(np.arange(30), 40)
    ids, labels = rng.integers(0, 4, 30)[owner], rng.integers(0, 2, 30)[owner]
    naive = diagnostics.permutation_baseline(one_hot(ids), labels, rounds=60)
    honest = diagnostics.permutation_baseline(one_hot(ids), labels, groups=owner, rounds=60)
    assert naive.observed == honest.observed
    assert naive.p < 0.05 < honest.p


def test_group_shuffles_leave_out_labels_that_no_group_has() -> None:
    ids = np.array([0, 0, 1, 1])
    found = diagnostics.permutation_baseline(one_hot(ids), [0, 0, 1, 1], groups=[5, 5, 9, 9], rounds=5)
    assert found.observed == pytest.approx(np.log(2))
    assert found.p == 1


def test_divergence_is_zero_at_the_mean_and_the_logarithm_of_what_is_rare() -> None:
    found = diagnostics.divergence([[0.4, 0.6], [1.0, 0.0], [0.0, 1.0]], [0.4, 0.6])
    assert found == pytest.approx([0.0, np.log(1 / 0.4), np.log(1 / 0.6)])
    assert diagnostics.divergence([[0.5, 0.5]], [1.0, 0.0]) == pytest.approx([0.0])  # 0.5 log 0.5 is below 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="no shares"):
        diagnostics.occupancy([])
    with pytest.raises(ModelError, match="do not fit"):
        diagnostics.mutual_information(one_hot(np.zeros(3, int)), [1, 2])
