"""The guard drops exactly the rows that leak, says from where, and keeps evaluation splits whole."""

from __future__ import annotations

import numpy as np

from tests.trainer_job.data.corpora import prepare
from trainer_job.data.leaks import conflicts, find_exact, guard, one_of_each
from trainer_job.data.rows import Prepared


def texts(part: Prepared) -> list[str]:
    return list(part.texts.select(part.rows)["text"])


def two_domains() -> dict[str, dict[str, Prepared]]:
    return {
        "films": {
            "train": prepare(["own one", "Shared, test!", "shared validation", "stays"]),
            "validation": prepare(["other", "shared validation", "in both"]),
            "test": prepare(["films test", "own one"]),
        },
        "tweets": {
            "train": prepare(["tweet", "films   TEST", "in both"]),
            "validation": prepare(["tweet validation"]),
            "test": prepare(["shared test", "in both"]),
        },
    }


def test_rows_that_stand_in_evaluation_splits_go_across_domains() -> None:
    kept, report = guard(two_domains(), [find_exact], keep=False)
    assert texts(kept["films"]["train"]) == ["stays"]
    assert texts(kept["tweets"]["train"]) == ["tweet"]
    assert texts(kept["films"]["validation"]) == ["other", "shared validation"]
    for domain in kept:
        assert texts(kept[domain]["test"]) == texts(two_domains()[domain]["test"])
    assert report["dropped"] == report["found"] == 6
    assert not report["kept"]


def test_the_report_says_from_where_to_where_with_an_example() -> None:
    _, report = guard(two_domains(), [find_exact], keep=False)
    found = {
        (pair["from_domain"], pair["from_split"], pair["in_domain"], pair["in_split"]): pair["dropped"]
        for pair in report["pairs"]
    }
    assert found == {
        ("films", "train", "films", "test"): 1,
        ("films", "train", "films", "validation"): 1,
        ("films", "train", "tweets", "test"): 1,
        ("films", "validation", "tweets", "test"): 1,
        ("tweets", "train", "films", "test"): 1,
        ("tweets", "train", "films", "validation"): 1,
        ("tweets", "train", "tweets", "test"): 1,
    }
    pair = next(pair for pair in report["pairs"] if pair["from_split"] == "validation")
    assert (pair["kind"], pair["example"], pair["example_meets"]) == ("exact", "in both", "in both")


def test_keeping_leaks_reports_them_and_drops_nothing() -> None:
    kept, report = guard(two_domains(), [find_exact], keep=True)
    assert len(kept["films"]["train"]) == 4
    assert (report["dropped"], report["found"], report["kept"]) == (0, 6, True)


def test_repeats_in_training_count_as_rows_and_as_texts() -> None:
    splits = {"a": {"train": prepare(["x y", "x-y", "z"]), "test": prepare(["X Y"])}}
    _, report = guard(splits, [find_exact], keep=False)
    assert (report["pairs"][0]["dropped"], report["pairs"][0]["texts"]) == (2, 1)


def test_of_equal_texts_one_with_the_commonest_label_stays() -> None:
    part = prepare(["a", "b", "A", "a!", "c", "b"])
    part.label[:] = [0, 1, 1, 1, 2, 0]
    chosen = one_of_each(part)
    assert chosen.tolist() == [
        1,
        2,
        4,
    ]  # b: one of each label, so the first; a: the first of the two that agree
    assert part.label[chosen].tolist() == [1, 1, 2]


def test_conflicting_labels_are_counted_over_all_places() -> None:
    splits = {
        "a": {"train": prepare(["same", "other", "Same"], label=0)},
        "b": {"train": prepare(["SAME", "mine"], label=2)},
    }
    found = conflicts(splits, ["negative", "neutral", "positive"])
    assert found == {"texts": 1, "examples": [{"text": "same", "labels": {"negative": 2, "positive": 1}}]}
    assert conflicts({"a": splits["a"]}, ["negative"])["texts"] == 0
    assert conflicts(splits, ["negative", "neutral", "positive"], examples=0)["examples"] == []


def test_many_rows_agree_with_sets() -> None:
    rng = np.random.default_rng(5)
    train, test = ([f"t{value}" for value in rng.integers(0, 500, 400)] for _ in range(2))
    kept, _ = guard({"a": {"train": prepare(train), "test": prepare(test)}}, [find_exact], keep=False)
    assert texts(kept["a"]["train"]) == [text for text in train if text not in set(test)]
