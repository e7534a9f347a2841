"""Parquet files: rows out of one, and one out of rows; the only module that knows pyarrow.

It reads a few hundred rows at a time and writes Arrow messages, which can be appended to a file that a
killed process left behind; a Parquet file cannot. The messages become a Parquet file at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.files.columns import Column
from serving.files.readers import Reading
from serving.files.rows import BadInput, Columns, Row

BATCH = 512  # rows in memory at once
GROUP = 64  # chunks in one row group


def require_pyarrow() -> None:
    """Raises `BadInput` when it is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401  only whether it is there
    except ImportError:
        raise BadInput(
            "Parquet needs pyarrow; pip install 'stratified-sentiment[files]', or use .csv or .jsonl"
        ) from None


def open_parquet(path: str, columns: Columns) -> Reading:
    """Begin to read; raises `BadInput`."""
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    try:
        source = parquet.ParquetFile(path, memory_map=False)
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: {_short(error)}; give a readable Parquet file") from None
    columns = columns.among(source.schema_arrow.names, where=path)
    numbers = itertools.count(1)

    def rows() -> Iterator[Row]:
        try:
            for batch in source.iter_batches(batch_size=BATCH, columns=columns.read):
                for record in batch.to_pylist():
                    yield columns.row(next(numbers), record)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{path}: {_short(error)}; give a whole, readable file") from None

    read = itertools.count()  # rows handed out so far
    last = [0]

    def counted() -> Iterator[Row]:
        for row in rows():
            last[0] = next(read) + 1
            yield row

    return Reading(counted(), lambda: last[0], source.metadata.num_rows, "row", source.close)


class ParquetEncoder:
    """Chunks of rows as Arrow messages; `finish` turns them into a Parquet file, a row group for many."""

    def __init__(self, columns: Sequence[Column]) -> None:
        require_pyarrow()
        import pyarrow as pa

        kinds = {
            "text": pa.string(),
            "integer": pa.int64(),
            "number": pa.float32(),
            "flag": pa.bool_(),
            "numbers": pa.list_(pa.float32()),
        }
        self._schema = pa.schema([(column.name, kinds[column.kind]) for column in columns])

    def head(self) -> bytes:
        """The schema."""
        return bytes(self._schema.serialize())

    def chunk(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """One message."""
        import pyarrow as pa

        return bytes(pa.RecordBatch.from_pylist(list(rows), schema=self._schema).serialize())

    def finish(self, part: Path, target: Path) -> None:
        """Write the Parquet file with no more than one row group in memory."""
        import pyarrow as pa
        from pyarrow import parquet

        with part.open("rb") as stream, pa.ipc.open_stream(stream) as messages:
            batches = iter(messages)
            with parquet.ParquetWriter(target, self._schema, compression="zstd") as writer:
                while group := list(itertools.islice(batches, GROUP)):
                    table = pa.Table.from_batches(group, schema=self._schema).combine_chunks()
                    writer.write_table(table, row_group_size=max(1, table.num_rows))


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
