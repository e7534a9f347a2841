"""Rows out of files: plain text, CSV, TSV, JSON lines; Parquet is beside it. One row at a time.

A row that is no good becomes a row with a problem; only what makes the rest unreadable ends the reading,
with `BadInput`. It knows formats, and not what is done with a row.
"""

from __future__ import annotations

import csv
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from serving.files.formats import STDIN, Format
from serving.files.lines import LONGEST, Line, Opened, open_bytes, read_lines
from serving.files.rows import BadInput, Columns, Row, broken

LOOK_AHEAD = 20  # JSON objects of which at least one must have the column of the texts


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows to come, and how far the file has been read: `position` of `size`, counted in `unit`s."""

    rows: Iterator[Row]
    position: Callable[[], int]
    size: int | None
    unit: str
    close: Callable[[], None]


def open_rows(path: str, kind: Format, columns: Columns) -> Reading:
    """Begin to read; raises `BadInput` for a file that cannot be read or lacks a column."""
    if kind.kind == "parquet":
        from serving.files.parquet import open_parquet

        return open_parquet(path, columns)
    opened = open_bytes(path, packed=kind.packed)
    try:
        rows = _begun(path, kind.kind, opened, columns)
    except BaseException:
        opened.close()
        raise
    return Reading(rows, opened.position, opened.size, "B", opened.close)


def _begun(path: str, kind: str, opened: Opened, columns: Columns) -> Iterator[Row]:
    """The first lines are read at once, so that what is wrong with the file is said before any work."""
    where = "stdin" if path == STDIN else path
    make = {"txt": _text_rows, "jsonl": _json_rows}.get(kind)
    lines = read_lines(opened.stream)
    if make is not None:
        rows = make(lines, columns, where)
    else:
        rows = _table_rows(lines, columns, where, "\t" if kind == "tsv" else ",")
    rows = _guarded(rows, where)
    if path == STDIN:
        return rows
    first = list(itertools.islice(rows, 1))
    return itertools.chain(first, rows)


def _guarded(rows: Iterator[Row], where: str) -> Iterator[Row]:
    try:
        yield from rows
    except BadInput as error:
        text = str(error)
        raise BadInput(text if text.startswith(where) else f"{where}: {text}") from None
    except (OSError, EOFError, zlib.error) as error:  # cut gzip files end in EOFError
        raise BadInput(f"{where}: {error}; give a whole, readable file") from None


def _text_rows(lines: Iterator[Line], columns: Columns, where: str) -> Iterator[Row]:
    """One text a line; blank lines are no rows."""
    for flag, asked in (
        ("--domain-column", columns.domain),
        ("--id-column", columns.id),
        ("--keep", columns.keep),
    ):
        if asked:
            raise BadInput(f"{where} is plain text and has no columns; leave {flag} out, or give a table")
    plain = Columns(fixed_domain=columns.fixed_domain)
    for line in lines:
        if line.problem:
            yield broken(line.number, line.problem)
        elif line.text.strip():
            yield plain.row(line.number, {plain.text: line.text.rstrip("\r\n")})


def _json_rows(lines: Iterator[Line], columns: Columns, where: str) -> Iterator[Row]:
    """One object a line; blank lines are no rows."""
    parsed = ((line, *_object(line)) for line in lines if line.problem or line.text.strip())
    ahead = list(itertools.islice(parsed, LOOK_AHEAD))
    keys = list(dict.fromkeys(key for _, record, _ in ahead for key in record or ()))
    if keys and columns.text not in keys:
        columns.among(keys, where=where)
    named = Columns(
        columns.text, columns.domain if columns.domain is not None else "domain",
        columns.id if columns.id is not None else "id", columns.keep, columns.fixed_domain,
    )  # fmt: skip
    for line, record, problem in itertools.chain(ahead, parsed):
        if record is None:
            yield broken(line.number, problem, keep=len(columns.keep))
        else:
            yield named.row(line.number, record)


def _object(line: Line) -> tuple[dict[str, Any] | None, str]:
    if line.problem:
        return None, line.problem
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        return record, ""
    return None, f"line {line.number} is no JSON object; correct it"


def _table_rows(lines: Iterator[Line], columns: Columns, where: str, delimiter: str) -> Iterator[Row]:
    """Rows below a header; numbers count rows, for a quoted field may hold line ends."""
    csv.field_size_limit(LONGEST)  # an open quote would swallow the rest of the file
    reader = csv.reader(map(_whole, lines), delimiter=delimiter)  # a generator would end at its first error
    header = next(reader, None)
    if not header:
        raise BadInput(f"{where} is empty; its first line must name the columns")
    columns = columns.among(header, where=where)
    for number in itertools.count(1):
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            yield broken(number, f"row {number}: {error}; correct its quotes", keep=len(columns.keep))
            continue
        if len(fields) > len(header):
            problem = f"row {number} has {len(fields)} fields, above the header's {len(header)}; quote them"
            yield broken(number, problem, keep=len(columns.keep))
        else:
            yield columns.row(number, dict(zip(header, fields, strict=False)))


class _TooLong(Exception):  # noqa: N818  only to travel through csv's reader
    """A line of a table that has no text."""


def _whole(line: Line) -> str:
    if line.problem:
        raise _TooLong(line.problem)
    return line.text
