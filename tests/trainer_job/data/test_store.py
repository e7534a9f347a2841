"""Tables read back as written; folders appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainer_job.data.store import build_folder, open_table, write_table
from trainer_job.errors import DataError

TYPES = {"ids": "list<int32>", "name": "string", "count": "int64"}
BATCHES = [
    {"ids": [[1, 2], []], "name": ["a", "é"], "count": [1, 2]},
    {"ids": [[3]], "name": ["c"], "count": [3]},
]


def test_tables_in_memory_and_on_disk_are_alike(tmp_path: Path) -> None:
    memory = write_table(BATCHES, types=TYPES, path=None)
    write_table(BATCHES, types=TYPES, path=tmp_path / "a.arrow")
    mapped = open_table(tmp_path / "a.arrow")
    assert (
        memory.to_dict()
        == mapped.to_dict()
        == {"ids": [[1, 2], [], [3]], "name": ["a", "é", "c"], "count": [1, 2, 3]}
    )
    assert not memory.cache_files
    assert mapped.cache_files


def test_a_table_without_rows_keeps_its_columns() -> None:
    assert write_table([], types=TYPES, path=None).column_names == list(TYPES)


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    def fails(aside: Path) -> None:
        (aside / "part").touch()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        build_folder(tmp_path / "cache" / "a", fails)
    assert list((tmp_path / "cache").iterdir()) == []
    build_folder(tmp_path / "cache" / "a", lambda aside: (aside / "whole").touch())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a"]


def test_of_two_builders_the_first_to_finish_wins(tmp_path: Path) -> None:
    def slow(aside: Path) -> None:
        build_folder(tmp_path / "a", lambda other: (other / "first").touch())
        (aside / "second").touch()

    build_folder(tmp_path / "a", slow)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_broken_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "half").touch()
    build_folder(tmp_path / "a", lambda aside: (aside / "whole").touch(), replace=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .*set cache to a writable folder"):
        build_folder(tmp_path / "file" / "a", lambda aside: None)

    def full(aside: Path) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(DataError, match=r"No space left on device.*free space or set cache elsewhere"):
        build_folder(tmp_path / "b", full)
