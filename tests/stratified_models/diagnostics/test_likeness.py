"""Groups that are taken for each other, and chains of them."""

from __future__ import annotations

import numpy as np

from stratified_models.diagnostics import alike_pairs, joined


def test_a_fifth_in_both_directions_makes_two_alike() -> None:
    assert alike_pairs([[8, 2, 0], [2, 8, 0], [0, 0, 9]]) == [(0, 1)]
    assert alike_pairs([[8, 2, 0], [1, 9, 0], [0, 0, 9]]) == []  # a tenth in one direction
    assert alike_pairs(np.zeros((3, 3))) == []  # nothing said of anything


def test_what_is_alike_by_way_of_a_third_is_one() -> None:
    assert joined(4, []) == [0, 1, 2, 3]
    assert joined(4, [(2, 3)]) == [0, 1, 2, 2]
    assert joined(5, [(1, 3), (3, 4)]) == [0, 1, 2, 1, 1]
    assert joined(5, [(3, 4), (1, 4)]) == [0, 1, 2, 1, 1]
