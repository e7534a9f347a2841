"""CSV files as people have them: what is guessed, what comes back, what is refused and how."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest

from demo.sheet import ADDED, BadFile, answer_sheet, inspect, rows
from serving.client import Answer, Failure
from serving.types import Item
from tests.demo.answers import answer


def written(folder: Path, data: bytes | str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def echo(items: Iterable[Item]) -> Iterator[tuple[str, Answer]]:
    for item in items:
        if item.text.strip():
            yield item.id, answer(domain=item.domain or "imdb")
        else:
            yield item.id, Failure(grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", "the text is empty")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheet_programs_write_is_read(tmp_path: Path, delimiter: str) -> None:
    lines = [
        delimiter.join(row) for row in (("id", "Review", "Domain"), ("1", "good", "imdb"), ("2", "", ""))
    ]
    sheet = inspect(written(tmp_path, "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"))
    assert (sheet.header, sheet.delimiter) == (("id", "Review", "Domain"), delimiter)
    assert (sheet.text_column, sheet.domain_column, sheet.count) == ("Review", "Domain", 2)
    assert list(rows(sheet)) == [["1", "good", "imdb"], ["2", "", ""]]


def test_quoted_cells_hold_lines_and_separators_and_short_rows_are_filled(tmp_path: Path) -> None:
    sheet = inspect(written(tmp_path, 'note,other\n"one, two\nthree"\n,x\n'))
    assert list(rows(sheet)) == [["one, two\nthree", ""], ["", "x"]]
    assert (sheet.text_column, sheet.domain_column) == ("note", "")


def test_answers_stand_behind_the_columns_of_the_file(tmp_path: Path) -> None:
    sheet = inspect(written(tmp_path, "text,domain,label\nfine,tweets,1\n ,imdb,0\n"))
    target = tmp_path / "out.csv"
    seen = [done for done, _ in answer_sheet(sheet, target, classify=echo, text="text", domain="domain")]
    with target.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert seen == [1, 2]
    assert table[0]["label"] == "1"
    assert (table[0]["predicted_label"], table[0]["score"], table[0]["answered_domain"]) == (
        "negative", "0.7500", "tweets",
    )  # fmt: skip
    assert (table[1]["predicted_label"], table[1]["error"]) == ("", "EMPTY_TEXT: the text is empty")
    assert list(table[0])[-len(ADDED) + 1 :] == list(ADDED[1:])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty; its first line must name the columns"),
        (b"text\n\n", "a header and no rows"),
        (b"text,text\na,b\n", "names a column twice"),
        (b"text\na,b\n", "2 cells, the header 1; quote texts"),
        (b"text\ncaf\xe9\n", "no UTF-8; save it as CSV in UTF-8"),
        (b"caf\xe9\na\n", "no UTF-8; save it as CSV in UTF-8"),
        (b'text\n"open\n', "line 2: unexpected end of data; quote the cell"),
    ],
)
def test_a_file_that_is_no_good_is_refused_in_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(BadFile, match=r"mine\.csv") as refused:
        inspect(written(tmp_path, data))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        inspect(tmp_path / "none.csv")
