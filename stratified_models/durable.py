"""Files that are there entirely or not at all, even when the machine stops in between; and what they hash to.

It knows files, and no bundle.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from stratified_models.manifest import FileEntry

__all__ = ["entry_of", "place", "sync"]


def sync(path: Path) -> None:
    """Bring a file's content, or a directory's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place(source: Path, target: Path) -> None:
    """Move a finished file to its name on the same file system; a reader sees the old one or the new one."""
    sync(source)
    source.replace(target)
    sync(target.parent)


def entry_of(path: Path) -> FileEntry:
    """Hash and size of a file."""
    with path.open("rb") as stream:
        return FileEntry(hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)
