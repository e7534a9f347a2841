"""The texts to measure with: as many as asked, the same ones each time, short and long."""

from __future__ import annotations

import pytest

from benchmarks import texts


def test_made_up_texts_are_of_unlike_lengths() -> None:
    found = texts.made_up(100)
    lengths = [len(text.split()) for text in found]
    assert len(found) == 100
    assert texts.made_up(100) == found
    assert texts.made_up(100, seed=1) != found
    assert min(lengths) < 15
    assert max(lengths) > 60


def test_made_up_texts_stand_in_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda package: None)
    assert texts.real_texts(10) == texts.made_up(10)


@pytest.mark.data
def test_real_texts_come_from_every_source() -> None:
    found = texts.real_texts(30)
    assert len(found) == 30
    assert texts.real_texts(30) == found
    assert all(text.strip() for text in found)
    assert max(map(len, found)) > 400  # a whole review
