"""From files to a corpus: counts, records, refusals, and a cache that is never half written or stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.data.corpora import rows
from trainer_job.config import DataConfig
from trainer_job.data import Corpus, load_corpus
from trainer_job.errors import DataError

Make = Callable[..., DataConfig]


def two(size: int = 200) -> dict[str, Any]:
    official = {split: rows(size, prefix=f"films {split}") for split in ("train", "validation", "test")}
    return {"films": official, "tweets": {"train": rows(size, prefix="tweets train")}}


def texts(corpus: Corpus, split: str) -> set[str]:
    return set(corpus.splits[split]["text"][:])


def test_official_splits_stay_and_missing_ones_are_cut(make: Make) -> None:
    corpus = load_corpus(make(two()))
    assert corpus.counts["films"] == {split: {"negative": 100, "positive": 100} for split in corpus.splits}
    assert corpus.counts["tweets"] == {
        "train": {"negative": 60, "positive": 60},
        "validation": {"negative": 15, "positive": 15},
        "test": {"negative": 25, "positive": 25},
    }
    assert all("films test" in text or "tweets" in text for text in texts(corpus, "test"))


def test_columns_ids_and_labels_fit_together(make: Make) -> None:
    corpus = load_corpus(make(two()))
    assert (corpus.labels, corpus.domains) == (("negative", "neutral", "positive"), ("films", "tweets"))
    assert corpus.domain_labels == ((0, 2), (0, 2))
    for table in corpus.splits.values():
        assert table.column_names == ["text", "label", "domain_id", "row_id"]
        assert table["row_id"][:] == list(range(len(table)))
        for row in table:
            assert row["text"].startswith(corpus.domains[row["domain_id"]])
            assert row["text"].endswith({0: "neg", 2: "pos"}[row["label"]])


def test_training_rows_are_spread_over_domains_then_labels(make: Make) -> None:
    corpus = load_corpus(make(two(), train_samples=101, validation_samples=30))
    assert corpus.counts["films"]["train"] == {"negative": 26, "positive": 25}
    assert corpus.counts["tweets"]["train"] == {"negative": 25, "positive": 25}
    assert corpus.counts["films"]["validation"] == {"negative": 8, "positive": 7}
    assert corpus.counts["tweets"]["test"] == {"negative": 25, "positive": 25}
    assert corpus.sources["films"]["requested"] == {"train": 51, "validation": 15, "test": None}
    assert corpus.sources["films"]["got"] == {"train": 51, "validation": 15, "test": 200}
    assert len({row["label"] for row in corpus.splits["train"].select(range(12))}) == 2  # not sorted by label


def test_training_has_natural_or_even_label_shares_and_evaluation_natural_ones(make: Make) -> None:
    skewed = {
        "films": {"train": [*rows(300, prefix="a", labels=("neg",)), *rows(100, prefix="b", labels=("pos",))]}
    }
    corpus = load_corpus(make(skewed, train_samples=100, test_samples=40))
    assert corpus.counts["films"]["train"] == {"negative": 75, "positive": 25}
    assert corpus.counts["films"]["test"] == {"negative": 30, "positive": 10}
    even = load_corpus(make(skewed, train_samples=100, test_samples=40, label_shares="even"))
    assert even.counts["films"]["train"] == {"negative": 50, "positive": 50}
    assert even.counts["films"]["test"] == {"negative": 30, "positive": 10}


def test_shares_by_size_follow_the_temperature(make: Make) -> None:
    sizes = {"big": {"train": rows(1600, prefix="big")}, "small": {"train": rows(100, prefix="small")}}
    corpus = load_corpus(make(sizes, train_samples=100, domain_shares="size", share_temperature=2))
    assert [corpus.sources[name]["got"]["train"] for name in ("big", "small")] == [80, 20]


def test_a_domain_with_fewer_rows_than_asked_says_so(make: Make) -> None:
    corpus = load_corpus(make(two(), train_samples=1000))
    record = corpus.sources["tweets"]
    assert (record["requested"]["train"], record["got"]["train"]) == (500, 120)
    assert "train: asked for 500 rows, has 120" in record["warnings"]


def test_leaks_duplicates_and_conflicts_are_recorded(make: Make) -> None:
    data = two()
    data["tweets"]["train"] += [
        ("FILMS TEST row, number 3 says neg!", "neg"),
        ("twice", "neg"),
        ("Twice.", "pos"),
    ]
    corpus = load_corpus(make(data))
    assert corpus.leaks["dropped"] == 1
    assert corpus.leaks["pairs"][0]["in_domain"] == "films"
    assert corpus.leaks["conflicting_labels"] == 1
    assert corpus.leaks["conflict_examples"][0]["labels"] == {"negative": 1, "positive": 1}
    assert corpus.sources["tweets"]["duplicates"] == {"train": 1}
    with_leaks = load_corpus(make(data, keep_leaks=True))
    assert with_leaks.leaks["kept"]
    everything = sum(len(table) for table in with_leaks.splits.values())
    assert everything == sum(len(table) for table in corpus.splits.values()) + 1


def test_groups_stay_in_one_split(tmp_path: Path) -> None:
    lines = [f"{doc}_{part}\t{part - 2}\tdoc {doc} sentence {part}" for doc in range(60) for part in range(5)]
    (tmp_path / "a.tsv").write_text("id\trating\tbody\n" + "\n".join(lines), encoding="utf-8")
    domain = {
        "source": {"kind": "files", "splits": {"train": "a.tsv"}},
        "text": "body",
        "label": "rating",
        "thresholds": {"negative": -0.5, "positive": 0.5},
        "labels": ["negative", "neutral", "positive"],
        "group": "id",
        "group_separator": "_",
    }
    corpus = load_corpus(DataConfig.model_validate({"root": tmp_path, "domains": {"docs": domain}}))
    homes: dict[str, set[str]] = {}
    for split in corpus.splits:
        for text in texts(corpus, split):
            homes.setdefault(text.split()[1], set()).add(split)
    assert len(homes) == 60
    assert all(len(splits) == 1 for splits in homes.values())


def test_the_fingerprint_names_the_rows_and_their_order(make: Make) -> None:
    first = load_corpus(make(two()))
    assert load_corpus(make(two())).fingerprint == first.fingerprint
    assert load_corpus(make(two(), seed=14)).fingerprint != first.fingerprint
    assert load_corpus(make(two(), labels=("negative", "positive"))).fingerprint != first.fingerprint


def test_the_cache_gives_the_same_corpus_and_reads_no_source(make: Make, tmp_path: Path) -> None:
    config = make(two())
    built = load_corpus(config, cache=tmp_path / "cache")
    memory = load_corpus(config)
    again = load_corpus(config, cache=tmp_path / "cache")
    for corpus in (memory, again):
        assert {name: value for name, value in vars(corpus).items() if name != "splits"} == {
            name: value for name, value in vars(built).items() if name != "splits"
        }
        assert all(corpus.splits[split].to_dict() == built.splits[split].to_dict() for split in built.splits)
    (folder,) = (tmp_path / "cache" / "corpora").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "corpus.json",
        "test.arrow",
        "train.arrow",
        "validation.arrow",
    ]


def test_a_changed_file_or_setting_is_read_anew(make: Make, tmp_path: Path) -> None:
    data = two()
    before = load_corpus(make(data), cache=tmp_path / "cache")
    data["tweets"]["train"].append(("one more row", "pos"))
    after = load_corpus(make(data), cache=tmp_path / "cache")
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("damage", ["truncate", "garble", "remove", "columns"])
def test_a_broken_cache_is_built_again(make: Make, tmp_path: Path, damage: str) -> None:
    config = make(two())
    good = load_corpus(config, cache=tmp_path / "cache")
    fingerprint = good.fingerprint
    del good
    (folder,) = (tmp_path / "cache" / "corpora").iterdir()
    if damage == "truncate":
        (folder / "train.arrow").write_bytes(b"")
    elif damage == "garble":
        (folder / "corpus.json").write_text("{", encoding="utf-8")
    elif damage == "remove":
        (folder / "test.arrow").unlink()
    else:
        (folder / "test.arrow").write_bytes(
            (folder / "test.arrow").read_bytes().replace(b"row_id", b"row_no")
        )
    again = load_corpus(config, cache=tmp_path / "cache")
    assert again.fingerprint == fingerprint
    assert json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["fingerprint"] == fingerprint
    assert load_corpus(config, cache=tmp_path / "cache").splits["train"].cache_files


def test_a_label_without_training_rows_is_refused(make: Make) -> None:
    with pytest.raises(
        DataError, match=r"domain 'films': no training row is positive.*declare only the labels"
    ):
        load_corpus(make({"films": {"train": rows(40, prefix="a", labels=("neg",))}}))


def test_an_evaluation_split_without_a_label_is_only_warned_about(make: Make) -> None:
    splits = {"train": rows(40, prefix="a"), "test": rows(10, prefix="b", labels=("neg",))}
    corpus = load_corpus(make({"films": splits}))
    assert "test: no row is positive" in corpus.sources["films"]["warnings"]


def test_a_split_that_the_guard_empties_is_refused(make: Make) -> None:
    same = rows(20, prefix="same")
    with pytest.raises(DataError, match=r"train has no rows left \(20 leaking rows went in all\)"):
        load_corpus(make({"films": {"train": same, "validation": rows(10, prefix="v"), "test": same}}))


def test_a_source_without_train_is_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"source.splits \['test'\] lacks train"):
        load_corpus(make({"films": {"test": rows(20, prefix="t")}}))


def test_nothing_is_left_behind_by_a_refusal(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_corpus(make({"films": {"train": [("a", "neg"), ("b", "odd")]}}), cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_a_cap_is_applied_before_anything_else(make: Make) -> None:
    config = make(two()).model_dump(mode="json")
    config["domains"]["films"]["cap"] = {"test": 20}
    corpus = load_corpus(DataConfig.model_validate(config))
    assert corpus.sources["films"]["read"] == {"train": 200, "validation": 200, "test": 20}


def test_rows_that_were_not_drawn_may_teach_their_domain(make: Make) -> None:
    plain = load_corpus(make(two(), train_samples=100))
    assert "spare" not in plain.splits
    corpus = load_corpus(make(two(), train_samples=100, domain_rows=80))
    assert corpus.splits["train"]["text"][:] == plain.splits["train"]["text"][:]
    spare = corpus.splits["spare"]
    assert [spare["domain_id"][:].count(domain) for domain in (0, 1)] == [80, 70]  # tweets has 70 left
    assert {name: record["got"]["spare"] for name, record in corpus.sources.items()} == {
        "films": 80,
        "tweets": 70,
    }
    assert not texts(corpus, "spare") & (texts(corpus, "train") | texts(corpus, "test"))
    assert corpus.counts == plain.counts
    assert corpus.fingerprint != plain.fingerprint


def test_all_that_is_left_may_be_none(make: Make, tmp_path: Path) -> None:
    every = load_corpus(make(two(), train_samples=None, domain_rows=None), cache=tmp_path)
    assert "spare" not in every.splits
    assert every.sources["films"]["got"]["spare"] == 0
    some = make(two(), train_samples=100, domain_rows=None)
    built, again = load_corpus(some, cache=tmp_path), load_corpus(some, cache=tmp_path)
    assert len(built.splits["spare"]) == 320 - 100
    assert built.splits["spare"]["text"][:] == again.splits["spare"]["text"][:]
