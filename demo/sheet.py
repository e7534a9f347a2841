"""A CSV file in, the same file with answers out; rows pass one at a time, so its size does not matter.

It knows what a spreadsheet program writes (comma, semicolon or tab, with or without a byte-order mark), and
the values of an answer. It opens no connection: the caller hands over a function that classifies a stream.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from serving.client import Answer, Failure
from serving.types import Item

ADDED = ("label", "score", "answered_domain", "domain_source", "out_of_domain", "truncated", "error")
DELIMITERS = ",;\t|"
FIELD = 1_000_000  # characters of one cell; the service refuses texts of fewer bytes by itself
TEXT_NAMES = ("text", "review", "sentence", "comment", "tweet", "body", "content", "message")

Classify = Callable[[Iterable[Item]], Iterator[tuple[str, Answer]]]


class BadFile(Exception):  # noqa: N818  a meaning, as in serving.errors
    """The file cannot be used; one line with the value, the rule and the cure."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file that was looked through: its columns, what separates them, how many rows it has."""

    path: Path
    header: tuple[str, ...]
    delimiter: str
    count: int

    @property
    def text_column(self) -> str:
        """The column that most likely holds the texts: by its name, or else the first."""
        return next((name for name in self.header if name.lower().strip() in TEXT_NAMES), self.header[0])

    @property
    def domain_column(self) -> str:
        """The column `domain`, or "" where there is none."""
        return next((name for name in self.header if name.lower().strip() == "domain"), "")


def inspect(path: Path) -> Sheet:
    """Look through the whole file once; raises `BadFile`."""
    delimiter = _delimiter(path)
    lines = _lines(path, delimiter)
    header = tuple(next(lines, []))
    if not any(name.strip() for name in header):
        raise BadFile(f"{path.name} is empty; its first line must name the columns")
    if len(set(header)) < len(header):
        raise BadFile(f"{path.name} names a column twice: {', '.join(header)}; give each a name of its own")
    count = sum(1 for row in lines if _fits(row, header, path))
    if not count:
        raise BadFile(f"{path.name} has a header and no rows; add a row for each text")
    return Sheet(path, header, delimiter, count)


def rows(sheet: Sheet) -> Iterator[list[str]]:
    """The rows, each as wide as the header; empty lines are left out."""
    lines = _lines(sheet.path, sheet.delimiter)
    next(lines)
    for row in lines:
        if _fits(row, sheet.header, sheet.path):
            yield row + [""] * (len(sheet.header) - len(row))


def answer_sheet(
    sheet: Sheet, target: Path, *, classify: Classify, text: str, domain: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Write the file with the columns `ADDED` at its end to `target`; yields, after each row, how many are
    done and the row as written.

    `text` and `domain` name columns; without a domain the model infers it. What `classify` raises passes.
    """
    column = sheet.header.index(text)
    place = sheet.header.index(domain) if domain else None
    sent: deque[list[str]] = deque()

    def items() -> Iterator[Item]:
        for number, row in enumerate(rows(sheet), start=1):
            sent.append(row)
            yield Item(row[column], row[place].strip() if place is not None else "", str(number))

    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*sheet.header, *(_free(name, sheet.header) for name in ADDED)])
        for done, (_, answer) in enumerate(classify(items()), start=1):
            row = [*sent.popleft(), *_cells(answer)]
            writer.writerow(row)
            yield done, row


def _cells(answer: Answer) -> list[str]:
    if isinstance(answer, Failure):
        return [""] * (len(ADDED) - 1) + [f"{answer.reason or answer.code.name}: {answer.message}"]
    return [
        answer.label,
        f"{answer.score:.4f}",
        answer.domain,
        answer.domain_source.name,
        str(answer.out_of_domain).lower(),
        str(answer.truncated).lower(),
        "",
    ]


def _free(name: str, header: tuple[str, ...]) -> str:
    """`name`, or a longer one where the file has such a column already."""
    while name in header:
        name = f"predicted_{name}"
    return name


def _delimiter(path: Path) -> str:
    """What separates the names in the first line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline(100_000)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    return max(DELIMITERS, key=first.count)


def _lines(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _parsed(stream, delimiter, path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _parsed(stream: TextIO, delimiter: str, path: Path) -> Iterator[list[str]]:
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise BadFile(f"{path.name}, line {reader.line_num}: {error}; quote the cell as CSV does") from None


def _fits(row: list[str], header: tuple[str, ...], path: Path) -> bool:
    """Whether a row has something in it; raises `BadFile` when it is wider than the header."""
    if len(row) > len(header):
        begin = " ".join(row)[:40]
        raise BadFile(
            f"{path.name}: the row that begins {begin!r} has {len(row)} cells, the header {len(header)}; "
            "quote texts that hold the separator"
        )
    return any(cell.strip() for cell in row)


def _unreadable(path: Path, error: Exception) -> BadFile:
    reason = "is no UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error})"
    return BadFile(f"{path.name} {reason}; save it as CSV in UTF-8")
