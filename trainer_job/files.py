"""Writing a file whole or not at all, and JSON without NaN.

Everything that another process may read while the sweep runs goes through `write_text`: written aside,
flushed to the disk, then renamed over the old file. It knows nothing of what the files mean.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sync_directory(directory: Path) -> None:
    """Make renames inside `directory` durable, where the file system lets a directory be opened."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:  # some network file systems refuse; the rename itself stays atomic
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically. Raises OSError (disk full, read-only) and leaves the old file
    then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def plain(value: Any) -> Any:  # noqa: PLR0911 - one return a kind of value reads best
    """A value as JSON can hold it: NaN and infinities become None, numpy scalars and arrays become Python's,
    paths text.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalar or array
        return plain(value.tolist())
    msg = f"{type(value).__name__} cannot stand in a JSON record; convert it before writing"
    raise TypeError(msg)


def write_json(path: Path, value: Any) -> None:
    """Write `plain(value)` atomically, indented, in the order of its keys."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when the file is missing or holds no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remove_tree(path: Path) -> None:
    """Delete a folder if it is there, as far as possible."""
    shutil.rmtree(path, ignore_errors=True)
