"""Domains taken for each other: twins are found, and counting them as one is said apart."""

from __future__ import annotations

import numpy as np
import pytest

from trainer_job.domain_inference import domain_inference

NAMES = ("a", "b", "c")


def test_twins_are_named_and_counted_as_one() -> None:
    truth = np.repeat([0, 1, 2], 10)
    said = np.r_[[0] * 6 + [1] * 4, [1] * 7 + [0] * 3, [2] * 9 + [0]]
    found = domain_inference(said, truth, NAMES)
    assert found is not None
    assert found["confusion"] == [[6, 4, 0], [3, 7, 0], [1, 0, 9]]
    assert found["alike"] == [["a", "b"]]
    assert found["accuracy"] == pytest.approx(22 / 30)
    assert found["accuracy_alike"] == pytest.approx(29 / 30)
    assert found["by_domain"] == {"a": 1.0, "b": 1.0, "c": pytest.approx(0.9)}


def test_one_sided_confusion_is_no_likeness() -> None:
    truth, said = np.repeat([0, 1, 2], 10), np.r_[[0] * 10, [0] * 10, [2] * 10]
    found = domain_inference(said, truth, NAMES)
    assert found is not None
    assert found["alike"] == []
    assert found["accuracy_alike"] == found["accuracy"] == pytest.approx(2 / 3)


def test_texts_of_unknown_domain_do_not_count() -> None:
    assert domain_inference(np.arange(3), np.full(3, -1), NAMES) is None
    found = domain_inference([0, 1, 2], [0, -1, 0], NAMES)
    assert found is not None
    assert (found["n"], found["accuracy"], found["by_domain"]) == (2, 0.5, {"a": 0.5})
