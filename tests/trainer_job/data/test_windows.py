"""Window hashes agree with slicing, and the lookup with a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_job.data.windows import Lookup, window_hashes

TEXTS = st.lists(st.text(alphabet="abé😀", max_size=30), max_size=8)


@given(texts=TEXTS, width=st.integers(1, 9))
def test_equal_runs_hash_alike_and_others_do_not(texts: list[str], width: int) -> None:
    hashes, places = window_hashes(texts, width)
    expected = [
        (place, text[start : start + width])
        for place, text in enumerate(texts)
        for start in range(len(text) - width + 1)
    ]
    assert places.tolist() == [place for place, _ in expected]
    by_run: dict[str, set[int]] = {}
    for (_, run), value in zip(expected, hashes.tolist(), strict=True):
        by_run.setdefault(run, set()).add(value)
    assert all(len(values) == 1 for values in by_run.values())
    assert len({next(iter(values)) for values in by_run.values()}) == len(by_run)


@pytest.mark.parametrize("width", [1, 5, 24, 63])
def test_a_run_hashes_the_same_wherever_it_stands(width: int) -> None:
    run = "".join(chr(97 + place % 26) for place in range(width))
    alone, _ = window_hashes([run], width)
    inside, _ = window_hashes(["zz" + run + "yy", run], width)
    assert alone[0] == inside[2] == inside[-1]


def test_lookup_finds_every_pair() -> None:
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2**64, 200, dtype=np.uint64)
    known[:5] = known[5]
    asked = np.concatenate([known[::7], rng.integers(0, 2**64, 500, dtype=np.uint64)])
    where, which = Lookup(known).matches(asked)
    expected = {(a, k) for a, value in enumerate(asked) for k in np.flatnonzero(known == value)}
    assert set(zip(where.tolist(), which.tolist(), strict=True)) == expected
    assert len(Lookup(known[:0]).matches(asked)[0]) == 0
