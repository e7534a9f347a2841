"""Rows to arrays and back, against the plain way of doing it."""

from __future__ import annotations

import numpy as np
import pytest

from serving.engines.arrays import assemble, outputs_of, wants_tokens
from serving.types import EngineItem, EngineOutput

ITEMS = [EngineItem((5, 6, 7), 1), EngineItem((8,)), EngineItem((9, 10), 0, per_token=True)]


@pytest.mark.parametrize(("length", "width"), [(0, 3), (2, 3), (5, 5)])
def test_rows_are_padded_to_the_longest_or_more(length: int, width: int) -> None:
    feed = assemble(ITEMS, pad=99, length=length)
    expected = [[*item.ids, *[99] * (width - len(item.ids))] for item in ITEMS]
    assert feed["input_ids"].tolist() == expected
    assert feed["attention_mask"].tolist() == [
        [1] * len(item.ids) + [0] * (width - len(item.ids)) for item in ITEMS
    ]
    assert feed["domain_id"].tolist() == [1, -1, 0]
    assert {values.dtype for values in feed.values()} == {np.dtype(np.int64)}


def test_outputs_are_plain_numbers_without_padding() -> None:
    strata = np.arange(18, dtype=np.float32).reshape(3, 3, 2)
    found = {
        "logits": np.ones((3, 2), np.float32),
        "domain_logits": np.zeros((3, 1), np.float32),
        "energy": np.array([0.5, 1.5, 2.5], np.float32),
        "occupancy": np.full((3, 2), 0.5, np.float32),
        "strata": strata,
    }
    first, _, third = outputs_of(found, ITEMS)
    assert first == EngineOutput((1.0, 1.0), (0.0,), 0.5, (0.5, 0.5))
    assert third.strata == ((12.0, 13.0), (14.0, 15.0))
    assert type(third.strata[0][0]) is float
    plain = outputs_of({name: found[name] for name in ("logits", "domain_logits", "energy")}, ITEMS)
    assert plain[2] == EngineOutput((1.0, 1.0), (0.0,), 2.5)


def test_who_asks_for_tokens() -> None:
    assert wants_tokens(ITEMS)
    assert not wants_tokens(ITEMS[:2])
