"""Readers stream what is there, and name file, line and cure where something is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer_job.data.readers import format_of, read_rows, require_columns
from trainer_job.errors import DataError


def read(
    path: Path, form: str, encoding: str = "utf-8", columns: tuple[str, ...] = ("text", "label")
) -> list[Any]:
    return list(read_rows(path, form=form, encoding=encoding, columns=columns))


@pytest.mark.parametrize(
    ("name", "declared", "expected"),
    [
        ("a.jsonl", None, "jsonl"),
        ("a.NDJSON", None, "jsonl"),
        ("a.csv.gz", None, "csv"),
        ("a.tsv", None, "tsv"),
        ("a.parquet", None, "parquet"),
        ("a.txt", "tsv", "tsv"),
    ],
)
def test_format_comes_from_suffix_unless_declared(name: str, declared: str | None, expected: str) -> None:
    assert format_of(Path(name), declared) == expected


def test_unknown_suffix_is_refused_with_the_cure() -> None:
    with pytest.raises(DataError, match=r"'\.txt' is not one of .*set source\.format"):
        format_of(Path("a.txt"), None)


def test_jsonl_plain_and_gzipped_skips_blank_lines(tmp_path: Path) -> None:
    lines = (
        "\ufeff"
        + json.dumps({"text": "a", "label": 1, "more": 2})
        + "\n\n"
        + json.dumps({"label": 0, "text": "é"})
    )
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    expected = [{"text": "a", "label": 1}, {"text": "é", "label": 0}]
    assert read(tmp_path / "a.jsonl", "jsonl") == expected
    assert read(tmp_path / "a.jsonl.gz", "jsonl") == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"line 2: not JSON .*one object a line"),
        ("[1, 2]", r"line 2: a list, not an object"),
        ('{"text": "a"}', r"line 2: no column 'label' among \['text'\]"),
    ],
)
def test_jsonl_faults_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ok", "label": "x"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(path, "jsonl")


def test_csv_reads_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('label,text\n1,"say ""hi"",\nthere"\n\n0,null\n', encoding="utf-8")
    assert read(path, "csv") == [{"text": 'say "hi",\nthere', "label": "1"}, {"text": "null", "label": "0"}]


def test_tsv_keeps_lone_quotes_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'label\ttext\r\n1\t"open\r\n2\tnext\r\n')
    assert read(path, "tsv") == [{"text": '"open', "label": "1"}, {"text": "next", "label": "2"}]


def test_ragged_and_unquoted_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,text\n1,a,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: 3 fields where the header has 2"):
        read(path, "csv")
    path.write_text('label,text\n1,"a"b\n', encoding="utf-8")
    with pytest.raises(DataError, match="not csv"):
        read(path, "csv")


def test_parquet_reads_only_what_is_asked(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["a", None], "label": [1, 0], "big": [b"x", b"y"]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet", "parquet") == [{"text": "a", "label": 1}, {"text": None, "label": 0}]
    with pytest.raises(DataError, match="no column 'gone'"):
        read(tmp_path / "a.parquet", "parquet", columns=("gone",))
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="not a Parquet file"):
        read(tmp_path / "b.parquet", "parquet")


def test_encoding_faults_name_byte_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"label,text\n1,caf\xe9 noir\n")
    with pytest.raises(DataError, match=r"byte 0xe9 is not utf-8.*; set source\.encoding"):
        read(path, "csv")
    assert read(path, "csv", "latin-1") == [{"text": "café noir", "label": "1"}]
    with pytest.raises(DataError, match="unknown encoding"):
        read(path, "csv", "klingon")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.jsonl", "jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, "csv")
    whole = gzip.compress(b'{"text": "a", "label": 1}\n' * 100)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "cut.jsonl.gz", "jsonl")
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "no.jsonl.gz", "jsonl")


def test_an_empty_table_yields_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("", encoding="utf-8")
    assert read(tmp_path / "a.csv", "csv") == []
    require_columns("here", ["text"], ["text"])
