"""Each kind of source is found, read and refused in the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from trainer_job.config import DomainConfig
from trainer_job.data.sources import TableRows, locate
from trainer_job.errors import DataError

Write = Callable[[Path], Any]


def domain(**source: Any) -> DomainConfig:
    return DomainConfig.model_validate(
        {
            "source": source,
            "label_map": {"0": "negative", "1": "positive"},
            "labels": ["negative", "positive"],
        }
    )


def texts(name: str, config: DomainConfig, root: Path | None, split: str = "train") -> list[Any]:
    return [row["text"] for row in locate(name, config, root).open()[split].rows(["text", "label"])]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A data set as the hub stores it: Parquet shards, splits by file name, metadata in the card."""
    folder = tmp_path / "films"
    (folder / "plain").mkdir(parents=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    for split, size in (("train", 6), ("test", 4)):
        rows = {
            "text": [f"{split} {place}" for place in range(size)],
            "label": [place % 2 for place in range(size)],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / "plain" / f"{split}-00000-of-00001.parquet"))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain\n  data_files:\n"
        "  - split: train\n    path: plain/train-*\n  - split: test\n    path: plain/test-*\n---\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")


def test_hub_layout_reads_by_name_and_split(hub: Path) -> None:
    config = domain(kind="hub", path="films", name="plain", splits={"train": "train", "test": "test"})
    found = locate("films", config, hub.parent)
    assert found.source == "hub films"
    splits = found.open()
    assert list(splits) == ["train", "test"]
    assert [row["label"] for row in splits["train"].rows(["label"])] == [0, 1, 0, 1, 0, 1]
    assert [row["text"] for row in splits["test"].take([1, 3]).rows(["text"])] == ["test 1", "test 3"]


def test_hub_faults_name_data_set_and_cure(hub: Path) -> None:
    missing = domain(kind="hub", path="films", name="plain", splits={"train": "nope"})
    with pytest.raises(DataError, match=r"hub data set 'films' .*split 'nope'.* did not load.*HF_HOME"):
        locate("films", missing, hub.parent).open()
    column = domain(kind="hub", path="films", name="plain")
    with pytest.raises(DataError, match="no column 'sentence' among"):
        list(locate("films", column, hub.parent).open()["train"].rows(["sentence"]))


def test_files_follow_globs_in_name_order(tmp_path: Path) -> None:
    for part in ("b", "a"):
        (tmp_path / f"{part}.csv").write_text(f"text,label\n{part} one,0\n{part} two,1\n", encoding="utf-8")
    config = domain(kind="files", splits={"train": "*.csv"})
    assert texts("x", config, tmp_path) == ["a one", "a two", "b one", "b two"]
    split = locate("x", config, tmp_path).open()["train"].take([1, 2])
    assert [row["text"] for row in split.rows(["text"])] == ["a two", "b one"]


def test_absolute_paths_need_no_root(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,0\n", encoding="utf-8")
    assert texts("x", domain(kind="files", splits={"train": str(tmp_path / "a.csv")}), None) == ["one"]


def test_identity_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\none,0\n", encoding="utf-8")
    config = domain(kind="files", splits={"train": "a.csv"})
    before = locate("x", config, tmp_path).identity
    assert locate("x", config, tmp_path).identity == before
    path.write_text("text,label\none more,0\n", encoding="utf-8")
    assert locate("x", config, tmp_path).identity != before


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", r"data\.root .*nowhere is not a folder; mount it or set data\.root"),
        (".", "no file matches .*gone"),
    ],
)
def test_missing_files_are_refused(tmp_path: Path, root: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        locate("x", domain(kind="files", splits={"train": "gone.csv"}), tmp_path / root)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError, match="no rows; a split needs some"):
        texts("x", domain(kind="files", splits={"train": "a.csv"}), tmp_path)


def test_package_files_are_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stratified_fake_texts"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    (package / "films.csv").write_text("text,label\none,0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = domain(kind="package", package="stratified_fake_texts", file="films.csv")
    assert texts("x", config, None) == ["one"]
    assert locate("x", config, None).revision is None
    assert "stratified_fake_texts" not in sys.modules
    gone = domain(kind="package", package="stratified_fake_texts", file="gone.csv")
    with pytest.raises(DataError, match=r"holds no 'gone\.csv'; pip install"):
        locate("x", gone, None)


def test_a_missing_package_names_the_install_command() -> None:
    with pytest.raises(DataError, match=r"package 'no_such_texts' is not installed; .*requirements-data.txt"):
        locate("x", domain(kind="package", package="no_such_texts", file="a.csv"), None)


def test_installed_packages_record_their_version() -> None:
    config = domain(kind="package", package="numpy", file="__init__.py")
    assert locate("x", config, None).revision


def test_saved_folders_read_as_dict_or_single_table(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    table.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": table, "dev": table}).save_to_disk(str(tmp_path / "two"))
    assert texts("x", domain(kind="saved", path="one"), tmp_path) == ["a", "b"]
    two = domain(kind="saved", path="two", splits={"train": "train", "validation": "dev"})
    assert texts("x", two, tmp_path, "validation") == ["a", "b"]
    wrong = domain(kind="saved", path="two", splits={"train": "train", "test": "test"})
    with pytest.raises(DataError, match=r"has no split 'test', only \['dev', 'train'\]"):
        locate("x", wrong, tmp_path).open()
    with pytest.raises(DataError, match="not a folder of datasets' save_to_disk"):
        locate("x", domain(kind="saved", path="three"), tmp_path)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": [], "label": []}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"did not load: .*it must be whole and have rows"):
        texts("x", domain(kind="saved", path="none"), tmp_path)
    empty = TableRows("domain 'x', train", datasets.Dataset.from_dict({"text": []}))
    with pytest.raises(DataError, match="no rows"):
        list(empty.rows(["text"]))
