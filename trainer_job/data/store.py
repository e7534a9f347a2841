"""Tables on disk or in memory: rows go in by batches, a memory-mapped `datasets.Dataset` comes out.

It does not know what the columns mean. With a directory the peak memory is one batch, whatever the number
of rows; a folder of tables appears whole or not at all, so that ranks which build the same one at once do
no harm.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer_job.errors import DataError

Batch = Mapping[str, Any]


def write_table(batches: Iterable[Batch], *, types: Mapping[str, str], path: Path | None) -> Any:
    """Write batches of equally long columns to an Arrow stream at `path` (None: in memory).

    Args:
        batches: each maps every name of `types` to a list or array of values.
        types: column → Arrow type name (`string`, `int64`, `int32`, `list<int32>`).
        path: the file to write; its folder exists.

    Returns:
        A `datasets.Dataset` over it, memory-mapped where a path was given.
    """
    import datasets
    import pyarrow as pa

    kinds = {"list<int32>": pa.list_(pa.int32()), "string": pa.string()}
    fields = [(name, kinds.get(kind) or pa.type_for_alias(kind)) for name, kind in types.items()]
    schema = pa.schema(fields)
    sink = pa.BufferOutputStream() if path is None else pa.OSFile(str(path), "wb")
    with sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            columns = [pa.array(batch[name], type=kind) for name, kind in fields]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    if path is not None:
        return datasets.Dataset.from_file(str(path))
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        return datasets.Dataset(datasets.table.InMemoryTable(reader.read_all()))


def open_table(path: Path) -> Any:
    """The memory-mapped `datasets.Dataset` over a table that `write_table` wrote.

    Raises:
        OSError, pyarrow.ArrowInvalid: it is missing or broken.
    """
    import datasets

    return datasets.Dataset.from_file(str(path))


def build_folder(folder: Path, build: Callable[[Path], None], *, replace: bool = False) -> None:
    """Let `build` fill a new folder beside `folder`, then rename it there.

    A folder that is there already was finished by another process meanwhile: it is kept and ours thrown away.
    With `replace` it is known to be broken, and is replaced.

    Raises:
        DataError: the cache cannot be written.
    """
    try:
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        aside.mkdir(parents=True)
    except OSError as error:
        raise DataError(
            f"cache {folder.parent} cannot be written ({error}); set cache to a writable folder"
        ) from error
    try:
        build(aside)
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            aside.rename(folder)  # fails on a folder with content, which is what we ask
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise DataError(
            f"cache {folder} cannot be written ({error}); free space or set cache elsewhere"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
