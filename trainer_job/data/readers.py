"""Readers: one file in, rows out, for JSON lines, CSV, TSV and Parquet, plain or gzipped, as a stream.

It does not know labels, domains or splits. Every fault names the file and, where there is one, the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from trainer_job.errors import DataError

Row = dict[str, Any]

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


def format_of(path: Path, declared: str | None) -> str:
    """The declared format, else the one that the suffix says (before `.gz`).

    Raises:
        DataError: neither says it.
    """
    if declared is not None:
        return declared
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise DataError(f"{path}: suffix {suffix!r} is not one of {known}; set source.format")
    return SUFFIXES[suffix.lower()]


def read_rows(path: Path, *, form: str, encoding: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the named columns of each row, in file order; only a line (or a Parquet batch) is held in memory.

    Raises:
        DataError: unreadable, not in this encoding or format, ragged, or without one of the columns.
    """
    reader: Callable[..., Iterator[Row]] = {
        "jsonl": _read_jsonl,
        "csv": _read_delimited,
        "tsv": _read_delimited,
        "parquet": _read_parquet,
    }[form]
    try:
        yield from reader(path, form=form, encoding=encoding, columns=columns)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path}: byte 0x{byte:02x} is not {encoding}; set source.encoding (such as latin-1)"
        ) from error
    except LookupError as error:
        raise DataError(
            f"{path}: {error}; set source.encoding to one that Python knows, such as utf-8"
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); check the path, its permissions and that it is whole"
        ) from error


def require_columns(where: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a table without one of the wanted columns.

    Raises:
        DataError: naming the missing column and those that exist.
    """
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(
            f"{where}: no column {missing[0]!r} among {list(present)}; correct text, label, where or group"
        )


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[IO[str]]:
    if encoding.lower().replace("_", "-") == "utf-8":
        encoding = "utf-8-sig"  # spreadsheets write a byte-order mark
    with (
        gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as binary,
        io.TextIOWrapper(cast("IO[bytes]", binary), encoding=encoding, newline="") as stream,
    ):
        yield stream


def _read_jsonl(path: Path, *, encoding: str, columns: Sequence[str], **_: object) -> Iterator[Row]:
    with _open_text(path, encoding) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path} line {number}: not JSON ({error}); write one object a line"
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{path} line {number}: a {type(row).__name__}, not an object; write one object a line"
                )
            require_columns(f"{path} line {number}", list(row), columns)
            yield {name: row[name] for name in columns}


def _read_delimited(path: Path, *, form: str, encoding: str, columns: Sequence[str]) -> Iterator[Row]:
    # Tab-separated corpora do not quote: a lone " in a text would swallow the following rows.
    if form == "tsv":
        dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    else:
        dialect = {"strict": True}
    with _open_text(path, encoding) as stream:
        rows = csv.reader(stream, **dialect)
        try:
            header = next(rows, None)
            if header is None:
                return
            require_columns(str(path), header, columns)
            places = [header.index(name) for name in columns]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path} line {rows.line_num}: {len(row)} fields where the header has {len(header)}; "
                        f"quote or escape the row, or set source.format"
                    )
                yield {name: row[place] for name, place in zip(columns, places, strict=True)}
        except csv.Error as error:
            raise DataError(
                f"{path} line {rows.line_num}: not {form} ({error}); check quoting and format"
            ) from error


def _read_parquet(path: Path, *, columns: Sequence[str], **_: object) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        require_columns(str(path), file.schema_arrow.names, columns)
        for batch in file.iter_batches(batch_size=4096, columns=list(columns)):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}: not a Parquet file ({error}); write it again or set source.format"
        ) from error
