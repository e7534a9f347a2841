"""Raw values become ours by the domain's map, or are refused; nothing is guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from trainer_job.config import DomainConfig
from trainer_job.data.rows import as_text, capped, label_reader, prepare
from trainer_job.errors import DataError

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Given:
    """A source that is a list."""

    content: tuple[dict[str, Any], ...]
    where: str = "domain 'x', train"

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for row in self.content:
            yield {name: row[name] for name in columns}

    def take(self, indices: Sequence[int]) -> Given:
        return replace(self, content=tuple(self.content[index] for index in indices))


def given(*content: tuple[Any, ...], names: tuple[str, ...] = ("text", "label")) -> Given:
    return Given(tuple(dict(zip(names, row, strict=True)) for row in content))


def domain(**settings: Any) -> DomainConfig:
    plain: dict[str, Any] = {
        "source": {"kind": "files", "splits": {"train": "x.csv"}},
        "label_map": {"0": "negative", "1": "positive"},
        "labels": ["negative", "positive"],
    }
    return DomainConfig.model_validate({**plain, **settings})


def read(raw: Given, config: DomainConfig, path: Path | None = None) -> Any:
    return prepare(raw, config, labels=LABELS, repair_mojibake=False, path=path)


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.0, "1"), ("1", "1"), (True, "true"), (0.5, "0.5"), (None, "None")]
)
def test_raw_values_read_as_text(value: object, text: str) -> None:
    assert as_text(value) == text


def test_labels_follow_the_map_and_rows_without_text_are_counted() -> None:
    raw = given(("good", 1), ("  ", 1), (None, 0), ("bad<br />bad", "0"))
    part, counts = read(raw, domain())
    assert part.texts["text"][:] == ["good", "bad bad"]
    assert part.label.tolist() == [2, 0]
    assert counts == {"read": 4, "filtered": 0, "empty": 2}
    assert part.group is None
    assert len(part.take(part.label == 2)) == 1


def test_an_unmapped_label_is_refused_with_row_value_and_cure() -> None:
    with pytest.raises(
        DataError, match=r"row 2: label '-1' is not in label_map \(0, 1\); map it, or drop it by where"
    ):
        read(given(("a", 0), ("b", -1)), domain())


def test_tweet_eval_neutral_is_not_positive() -> None:
    config = domain(label_map={"0": "negative", "1": "neutral", "2": "positive"}, labels=list(LABELS))
    part, _ = read(given(("a", 0), ("b", 1), ("c", 2)), config)
    assert part.label.tolist() == [0, 1, 2]


def test_ratings_fall_into_three_classes_with_inclusive_middle() -> None:
    config = domain(label_map=None, thresholds={"negative": -0.5, "positive": 0.5}, labels=list(LABELS))
    reader = label_reader(config, LABELS)
    assert [reader(value) for value in ("-0.51", "-0.5", 0, "0.5", 0.51)] == [0, 1, 1, 1, 2]
    for value in ("good", "nan", None):
        with pytest.raises(ValueError, match="is not a finite number"):
            reader(value)


def test_a_rating_outside_the_declared_labels_is_refused() -> None:
    config = domain(label_map=None, thresholds={"negative": -0.5, "positive": 0.5})
    with pytest.raises(DataError, match=r"0\.1 reads as neutral, outside \['negative', 'positive'\]"):
        read(given(("a", "0.1")), config)


def test_where_keeps_rows_and_refuses_to_leave_none() -> None:
    raw = given(("a", 0, "x"), ("b", 9, "y"), names=("text", "label", "kind"))
    part, counts = read(raw, domain(where={"kind": "x"}))
    assert part.texts["text"][:] == ["a"]
    assert counts["filtered"] == 1
    with pytest.raises(
        DataError, match=r"no row is left of 2 \(2 outside where, 0 without text\); correct where"
    ):
        read(raw, domain(where={"kind": "z"}))


def test_groups_are_cut_before_the_separator() -> None:
    raw = given(("a", 0, "1_1"), ("b", 0, "1_2"), ("c", 1, "10_1"), names=("text", "label", "id"))
    part, _ = read(raw, domain(group="id", group_separator="_"))
    assert part.group is not None
    first, second, third = part.group.tolist()
    assert first == second != third
    whole, _ = read(raw, domain(group="id"))
    assert whole.group is not None
    assert len(set(whole.group.tolist())) == 3


def test_a_written_split_reads_like_one_in_memory(tmp_path: Path) -> None:
    raw = given(*((f"text {place}", place % 2) for place in range(9000)))  # more than two batches
    mapped, _ = read(raw, domain(), tmp_path / "a.arrow")
    memory, _ = read(raw, domain())
    assert mapped.texts["text"][:] == memory.texts["text"][:]
    assert mapped.key.tolist() == memory.key.tolist()


def test_a_cap_draws_in_the_sources_label_shares() -> None:
    raw = given(
        *((f"text {place}", int(place >= 900), "k" if place % 2 else "l") for place in range(1000)),
        names=("text", "label", "kind"),
    )
    chosen = capped(raw, domain(), cap=100, seed=13, name="x/train")
    assert Counter(row["label"] for row in chosen.rows(["label"])) == {0: 90, 1: 10}
    assert chosen == capped(raw, domain(), cap=100, seed=13, name="x/train")
    assert chosen != capped(raw, domain(), cap=100, seed=14, name="x/train")
    filtered = capped(raw, domain(where={"kind": "k"}), cap=100, seed=13, name="x/train")
    assert {row["kind"] for row in filtered.rows(["kind"])} == {"k"}
    assert capped(raw, domain(), cap=1000, seed=13, name="x/train") is raw
