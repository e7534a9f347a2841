"""The output of a run: chunks are appended to a part file, and each is safe before the next is begun.

    out.parquet.part         what is done so far; becomes out.parquet at the end, in one step
    out.parquet.state.json   how much of it is known to be on the disk; stays, so that a second run knows

A run that is killed at any moment goes on from the last chunk that the state names; what came after it is cut
off and done again. It knows no rows: an encoder turns them into bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from serving.files.encoders import Encoder
from serving.files.rows import BadInput
from serving.files.state import State, place, read_state, write_state

REDO = "add --overwrite to begin anew, or give another --output"


class Output:
    """One output file in the making; close it in any case."""

    def __init__(
        self, target: Path, asked: Mapping[str, Any], *, overwrite: bool = False, resumable: bool = True
    ) -> None:
        """Find what is done already; raises `BadInput` when it is of another input, or not ours. What
        comes out of a pipe is not `resumable`.
        """
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        if not target.parent.is_dir():
            raise BadInput(f"--output {target}: there is no folder {target.parent}; make it first")
        self._stream: BinaryIO = self._locked()
        try:
            found = read_state(target) if resumable and not overwrite else None
            if found is None and target.exists() and not overwrite:
                raise BadInput(f"{target} exists and is not the output of an earlier run; {REDO}")
            if found is not None:
                self._refuse_another(found, asked)
            self.resumed = found is not None
            self.state = found or State(asked=dict(asked))
            self._encoder: Encoder | None = None
        except BaseException:
            self._let_go(useless=not self._stream.seek(0, os.SEEK_END))
            raise

    @property
    def complete(self) -> bool:
        """Whether the output is there as it shall be."""
        return self.state.complete and self._target.exists()

    def begin(self, encoder: Encoder, made: Mapping[str, Any]) -> None:
        """Take an encoder; `made` is kept, and must be what it was when the run is resumed."""
        self._encoder = encoder
        head = encoder.head()
        if self.state.made:
            different = [name for name in made if made[name] != self.state.made.get(name)]
            if different:
                name = different[0]
                raise BadInput(
                    f"{self._target} was begun with {name} {self.state.made.get(name)}, and now it is "
                    f"{made[name]}; {REDO}"
                )
        with self._telling():
            if not self.state.bytes or self._stream.seek(0, os.SEEK_END) < self.state.bytes:
                self.state = State(asked=self.state.asked)  # the part file went: nothing of it can be used
                self._stream.truncate(0)
                self._stream.seek(0)
                self._write(head)
                self.state = replace(self.state, made=dict(made), bytes=len(head))
                write_state(self._target, self.state)
            self._stream.truncate(self.state.bytes)
            self._stream.seek(self.state.bytes)

    def append(self, rows: Sequence[Mapping[str, Any]], *, failed: int) -> None:
        """Add a chunk; when this returns it survives a kill. Raises `BadInput` when it cannot be written."""
        assert self._encoder is not None  # noqa: S101  the order of our own calls
        chunk = self._encoder.chunk(rows)
        with self._telling():
            self._write(chunk)
            self.state = self.state.after(rows=len(rows), failed=failed, length=len(chunk))
            write_state(self._target, self.state)

    def finish(self) -> None:
        """Put the output in its place."""
        assert self._encoder is not None  # noqa: S101  the order of our own calls
        aside = self._target.with_name(f"{self._target.name}.new")
        with self._telling():
            self._encoder.finish(self._part, aside)
            place(aside, self._target)
            self.state = replace(self.state, complete=True)
            write_state(self._target, self.state)

    def close(self) -> None:
        """Let go of the files; what is done stays."""
        self._let_go(useless=self.complete or not self.state.bytes)

    def _let_go(self, *, useless: bool) -> None:
        if useless:  # while it is locked: another run may begin the moment it is not
            self._part.unlink(missing_ok=True)
        self._stream.close()

    def _locked(self) -> BinaryIO:
        try:
            stream = self._part.open("ab+")
        except OSError as error:
            raise BadInput(
                f"--output {self._target}: {error.strerror or error}; choose another place"
            ) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise BadInput(f"another process is writing {self._target}; wait for it") from None
        return stream

    def _refuse_another(self, found: State, asked: Mapping[str, Any]) -> None:
        for name in {**found.asked, **asked}:
            before, now = found.asked.get(name), asked.get(name)
            if before != now:
                what = "of another input" if name == "input" else f"made with {name} {before!r}, not {now!r}"
                raise BadInput(f"{self._target} is {what}; {REDO}")

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    @contextlib.contextmanager
    def _telling(self) -> Any:
        try:
            yield
        except OSError as error:
            raise BadInput(
                f"{self._target} cannot be written: {error.strerror or error}; {self.state.rows} rows are "
                "safe, make room and run the same command again"
            ) from None
