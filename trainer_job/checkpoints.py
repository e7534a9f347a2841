"""Which checkpoints may be trusted: the `.complete` marker, its verification, and the order of deletion.

The Trainer writes a checkpoint file by file, with no last word. Ours is the marker, written after every rank
has saved: the sizes of all files, the step and the number of ranks, flushed, then renamed into place. A
folder without a marker, or whose files no longer have those sizes, is passed over. This module knows files,
not tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from trainer_job.files import read_json, remove_tree, sync_directory, write_json

MARKER = ".complete"


def _step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name; -1 for another name."""
    _, _, number = folder.name.partition("checkpoint-")
    return int(number) if number.isdigit() else -1


def list_checkpoints(unit_folder: Path) -> list[Path]:
    """Checkpoint folders, complete or not, earliest step first."""
    found = [path for path in unit_folder.glob("checkpoint-*") if path.is_dir() and _step_of(path) >= 0]
    return sorted(found, key=_step_of)


def mark_complete(folder: Path, *, step: int, world_size: int, identity: str, last: bool) -> None:
    """Flush a checkpoint's files to disk, then write its marker; `last` says that training ended here."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != MARKER and not path.name.endswith(".tmp"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            sizes[path.name] = path.stat().st_size
    sync_directory(folder)
    marker = {"step": step, "world_size": world_size, "identity": identity, "last": last, "files": sizes}
    write_json(folder / MARKER, marker)


def is_last(folder: Path) -> bool:
    """Whether training was over when this checkpoint was written."""
    return bool((read_json(folder / MARKER) or {}).get("last"))


def flaw(folder: Path, *, world_size: int, identity: str) -> str | None:
    """Why this checkpoint cannot be resumed from, in a few words; None when it can."""
    marker = read_json(folder / MARKER)
    if marker is None:
        return "it was not finished (no .complete marker)"
    for name, size in marker.get("files", {}).items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            return f"{name} has {'no' if found is None else found} bytes instead of {size}"
    if marker.get("identity") != identity:
        return "it belongs to other data or another configuration"
    if marker.get("world_size") != world_size:
        return f"it was written by {marker.get('world_size')} process(es), this run has {world_size}"
    return _flaw_of_best(folder, world_size=world_size, identity=identity)


def _flaw_of_best(folder: Path, *, world_size: int, identity: str) -> str | None:
    """A checkpoint also needs the best one that it remembers, or the unit would end on other weights."""
    step = (read_json(folder / "trainer_state.json") or {}).get("best_global_step")
    if not step or int(step) == _step_of(folder):
        return None
    reason = flaw(folder.with_name(f"checkpoint-{int(step)}"), world_size=world_size, identity=identity)
    return f"its best checkpoint-{step} is unusable: {reason}" if reason else None


def find_resumable(
    unit_folder: Path, *, world_size: int, identity: str, warn: Callable[[str, str], None]
) -> Path | None:
    """The latest checkpoint that can be trusted; tells `warn(name, reason)` about each one passed over."""
    for folder in reversed(list_checkpoints(unit_folder)):
        reason = flaw(folder, world_size=world_size, identity=identity)
        if reason is None:
            return folder
        warn(folder.name, reason)
    return None


def rotate(unit_folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` complete checkpoints and the best one. Call only after a new marker
    stands.
    """
    complete = [path for path in list_checkpoints(unit_folder) if (path / MARKER).is_file()]
    for folder in complete[:-keep]:
        if _step_of(folder) != best_step:
            (folder / MARKER).unlink(missing_ok=True)  # first the marker: half-deleted must not look complete
            remove_tree(folder)


def drop_all(unit_folder: Path) -> None:
    """Delete every checkpoint of a unit, because it starts anew or is finished and bundled."""
    for folder in list_checkpoints(unit_folder):
        (folder / MARKER).unlink(missing_ok=True)
        remove_tree(folder)
