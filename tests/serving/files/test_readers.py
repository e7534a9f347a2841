"""Rows out of files: every format, and everything that can be wrong with a row or a file."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from serving.files.formats import Format, format_to_read, format_to_write
from serving.files.readers import open_rows
from serving.files.rows import BadInput, Columns, Row
from serving.types import Item


def rows(path: Path, columns: Columns = Columns()) -> list[Row]:  # noqa: B008  it is frozen
    reading = open_rows(str(path), format_to_read(str(path)), columns)
    try:
        return list(reading.rows)
    finally:
        reading.close()


def items(path: Path, columns: Columns = Columns()) -> list[Item | str]:  # noqa: B008  it is frozen
    return [row.problem or row.item for row in rows(path, columns)]


def written(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_are_texts_and_blank_ones_are_no_rows(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "one\n\n  two \r\nthree")
    expected = [Item("one", "d", "1"), Item("  two ", "d", "3"), Item("three", "d", "4")]
    assert items(path, Columns(fixed_domain="d")) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_objects_name_text_domain_and_id(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, '{"text": "one", "domain": "d", "id": 7}\n\n{"text": "two"}\n')
    assert items(path) == [Item("one", "d", "7"), Item("two", "", "3")]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_tables_have_a_header_and_may_quote_line_ends(tmp_path: Path, name: str, mark: str) -> None:
    text = f'\ufeffbody{mark}d{mark}key\n"one\nmore"{mark}imdb{mark}a\ntwo{mark}{mark}b\n'
    path = written(tmp_path / name, text)
    columns = Columns("body", "d", "key", keep=("d",))
    assert items(path, columns) == [Item("one\nmore", "imdb", "a"), Item("two", "", "b")]
    assert [row.kept for row in rows(path, columns)] == [("imdb",), ("",)]


def test_parquet_brings_what_is_asked_for_and_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["one", None, "three"], "domain": ["d", "d", None], "n": [1, 2, [3][0]]})
    parquet.write_table(table, path)
    found = rows(path, Columns(keep=("n",)))
    assert [row.item for row in found] == [Item("one", "d", "1"), Item("", "", "2"), Item("three", "", "3")]
    assert [row.kept for row in found] == [("1",), ("2",), ("3",)]
    assert found[1].problem == "row 2 has no 'text'; give it a text"
    reading = open_rows(str(path), Format("parquet"), Columns())
    assert (reading.size, reading.position(), reading.unit) == (3, 0, "row")
    list(reading.rows)
    assert reading.position() == 3
    reading.close()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", '{"text": "good"}\n{bad\n{"text": "good"}', "line 2 is no JSON object; correct it"),
        ("a.jsonl", '{"text": "good"}\n[1]\n{"text": "good"}', "line 2 is no JSON object; correct it"),
        (
            "a.jsonl",
            '{"text": "good"}\n{"text": null}\n{"text": "good"}',
            "row 2 has no 'text'; give it a text",
        ),
        (
            "a.jsonl",
            '{"text": "good"}\n{"text": 5}\n{"text": "good"}',
            "row 2 has int in 'text'; give it a text",
        ),
        ("a.jsonl", '{"text": "good"}\n{"text": "\\ud800"}\n{"text": "good"}', "row 2 is not UTF-8"),
        ("a.txt", b"good\n\xff\xfe\ngood\n", "row 2 is not UTF-8; save the file as UTF-8"),
        ("a.csv", b"text\ngood\n\xff\ngood\n", "row 2 is not UTF-8; save the file as UTF-8"),
        ("a.csv", "text\ngood\na,b\ngood\n", "row 2 has 2 fields, above the header's 1; quote them"),
        ("a.csv", "n,text\n1,good\n2\n3,good\n", "row 2 has no 'text'; give it a text"),
    ],
)
def test_a_bad_row_is_a_row_with_a_problem(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    path = written(tmp_path / name, content)
    found = rows(path)
    assert [bool(row.problem) for row in found] == [False, True, False]
    assert found[1].problem.startswith(problem)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.files.lines.LONGEST", 64)
    from serving.files import lines

    path = written(tmp_path / "a.txt", "good\n" + "x" * 1000 + "\ngood\n")
    with path.open("rb") as stream:
        found = list(lines.read_lines(stream, longest=64))
    assert [(line.number, bool(line.problem)) for line in found] == [(1, False), (2, True), (3, False)]


def test_an_open_quote_costs_rows_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.files.readers.LONGEST", 200)
    path = written(tmp_path / "a.csv", "text\ngood\n" + '"open\n' + "line\n" * 100)
    found = rows(path)
    assert not found[0].problem
    assert "correct its quotes" in found[1].problem
    assert len(found) > 2


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.csv", "body,d\n", Columns(), "has no column 'text'; set --text-column to one of: body, d"),
        ("a.csv", "text\n", Columns(domain="d"), "has no column 'd'; set --domain-column to one of: text"),
        ("a.csv", "text\n", Columns(keep=("d",)), "has no column 'd'; set --keep to one of: text"),
        ("a.csv", "", Columns(), "is empty; its first line must name the columns"),
        ("a.jsonl", '{"body": "a"}\n', Columns(), "has no column 'text'; set --text-column to one of: body"),
        ("a.txt", "a\n", Columns(keep=("d",)), "plain text and has no columns; leave --keep out"),
        ("a.txt", "a".encode("utf-16"), Columns(), "a.txt: the file is UTF-16; save it as UTF-8"),
        ("a.parquet", "no", Columns(), "give a readable Parquet file"),
        ("a.xml", "", Columns(), "unknown format; give .txt[.gz], .csv[.gz]"),
        ("a", "", Columns(), "unknown format"),
        ("a.parquet.gz", "", Columns(), "unknown format"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_before_any_work(
    tmp_path: Path, name: str, content: str | bytes, columns: Columns, message: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(BadInput, match=re.escape(message)):
        rows(path, columns)


def test_a_file_that_is_not_there_and_one_that_is_cut(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        open_rows(str(tmp_path / "a.csv"), Format("csv"), Columns())
    whole = gzip.compress("\n".join(str(number) for number in range(100_000)).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    reading = open_rows(str(tmp_path / "a.txt.gz"), Format("txt", packed=True), Columns())
    with pytest.raises(BadInput, match="give a whole, readable file"):
        list(reading.rows)
    reading.close()


def test_a_domain_for_all_leaves_the_column_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,domain\none,tweets\n")
    assert items(path) == [Item("one", "tweets", "1")]
    assert items(path, Columns(fixed_domain="imdb")) == [Item("one", "imdb", "1")]
    assert items(path, Columns(domain="")) == [Item("one", "", "1")]


def test_values_that_are_no_text_are_kept_as_json(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps({"text": "a", "x": {"y": [1]}, "z": True, "w": 2}))
    assert rows(path, Columns(keep=("x", "z", "w", "none")))[0].kept == ('{"y": [1]}', "true", "2", None)


def test_formats_that_can_be_written() -> None:
    assert format_to_write("a.b.TSV.gz") == Format("tsv", packed=True)
    for name, message in (("-", "leave --output out to print"), ("a.txt", "unknown format; give .csv")):
        with pytest.raises(BadInput, match=message):
            format_to_write(name)
