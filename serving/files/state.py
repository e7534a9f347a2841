"""How far a file has been worked off, beside the output: what a run that was killed goes on from.

The state names its input and everything that decides the output's bytes; a run that differs in any of it is
refused rather than mixed in. It knows JSON and no format of rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.files.rows import BadInput

VERSION = 1
SAMPLE = 1024 * 1024  # bytes at the beginning, in the middle and at the end of a file that stand for all


@dataclass(frozen=True, slots=True)
class State:
    """`asked`: what the user asked for; `made`: what turned out when the run began (the model, the engine).

    `rows` and `failed` are done, and take `bytes` of the part file.
    """

    asked: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    failed: int = 0
    bytes: int = 0
    complete: bool = False

    def after(self, *, rows: int, failed: int, length: int) -> State:
        """With one more chunk."""
        return replace(self, rows=self.rows + rows, failed=self.failed + failed, bytes=self.bytes + length)


def state_path(target: Path) -> Path:
    """Where the state of an output stands."""
    return target.with_name(f"{target.name}.state.json")


def read_state(target: Path) -> State | None:
    """The state of an output; None where there is none. Raises `BadInput` for one that cannot be read."""
    path = state_path(target)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("version") != VERSION:
            raise ValueError("of another release")
        return State(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: unreadable state ({error}); add --overwrite to begin anew") from None


def write_state(target: Path, state: State) -> None:
    """Replace the state, whole or not at all."""
    path = state_path(target)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(json.dumps({"version": VERSION, **asdict(state)}, indent=1) + "\n", encoding="utf-8")
    place(aside, path)


def place(source: Path, target: Path) -> None:
    """Move a finished file to its name: a reader sees the old one or the new one, also after a power cut.

    The same as `stratified_models.durable.place`, whose package brings torch, which no client shall need.
    """
    _sync(source)
    source.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from another: its size, and a hash of three samples of it, whatever its name."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            digest = hashlib.sha256()
            for offset in sorted({0, max(0, (size - SAMPLE) // 2), max(0, size - SAMPLE)}):
                stream.seek(offset)
                digest.update(stream.read(SAMPLE))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; give a readable file") from None
    return {"bytes": size, "sha256": digest.hexdigest()}
