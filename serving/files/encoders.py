"""Rows of an output as bytes: CSV, TSV, JSON lines, each packed if so named; Parquet is beside it.

An encoder knows its format and neither file nor progress. The same rows in the same chunks give the same
bytes, and chunks can be put one after another.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from serving.files.columns import Column
from serving.files.formats import Format


class Encoder(Protocol):
    """`head`, then any number of `chunk`s, are the part file; `finish` makes the output of it."""

    def head(self) -> bytes:
        """What comes before the first row."""
        ...

    def chunk(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Some rows."""
        ...

    def finish(self, part: Path, target: Path) -> None:
        """Write `target` out of a complete part file, which stays as it is."""
        ...


def encoder_for(kind: Format, columns: Sequence[Column]) -> Encoder:
    """The one for a format; raises `BadInput` when its library is not installed."""
    if kind.kind == "parquet":
        from serving.files.parquet import ParquetEncoder

        return ParquetEncoder(columns)
    if kind.kind == "jsonl":
        return JsonEncoder(packed=kind.packed)
    return TableEncoder(columns, delimiter="\t" if kind.kind == "tsv" else ",", packed=kind.packed)


class _Text:
    """What the formats of text share."""

    def __init__(self, *, packed: bool) -> None:
        self._packed = packed

    def _bytes(self, text: str) -> bytes:
        """A gzip member a chunk, without its time: files of members are gzip files."""
        raw = text.encode("utf-8", "replace")
        return gzip.compress(raw, compresslevel=6, mtime=0) if self._packed and raw else raw

    def finish(self, part: Path, target: Path) -> None:
        """The part file is the output, and stays until its name is in place."""
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(part)
        except OSError:  # not every file system has links
            shutil.copyfile(part, target)


class JsonEncoder(_Text):
    """One object a line."""

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def chunk(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Lines."""
        return self._bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class TableEncoder(_Text):
    """Comma- or tab-separated, with a header; lists as JSON, flags as true and false."""

    def __init__(self, columns: Sequence[Column], *, delimiter: str, packed: bool) -> None:
        super().__init__(packed=packed)
        self._names = [column.name for column in columns]
        self._delimiter = delimiter

    def head(self) -> bytes:
        """The names of the columns."""
        return self._bytes(self._written([self._names]))

    def chunk(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Lines."""
        return self._bytes(self._written([[_cell(row[name]) for name in self._names] for row in rows]))

    def _written(self, rows: Sequence[Sequence[object]]) -> str:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        return stream.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value)
    return "" if value is None else value
