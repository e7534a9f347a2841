"""A value out of files that is read again when they change, such as a certificate that is renewed.

It knows files by their stamps and nothing of what is in them. A change that cannot be read, for instance half
of a new pair, leaves the old value in force, is logged once, and is tried again when the files change again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from serving.errors import BadSettings

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int] | None, ...]

INTERVAL = 1.0  # seconds between looks at the files: a call must not pay for the disk

log = structlog.get_logger(__name__)


class Watched(Generic[T]):
    """The value that `read` makes of the files at `paths`; safe to use from any thread.

    `read` raises `BadSettings` for what it cannot use: the first time that reaches the caller, later on the
    old value stays, or `fallback` takes its place. `clock` counts seconds; looks are at least `interval`
    apart.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], T],
        *,
        clock: Callable[[], float],
        interval: float = INTERVAL,
        fallback: T | None = None,
    ) -> None:
        self._paths, self._read, self._clock, self._interval = tuple(paths), read, clock, interval
        self._lock = threading.Lock()
        self._stamp, self._looked = self._look(), clock()
        self._value, self._fallback = read(), fallback

    def current(self) -> T:
        """The newest value that could be read."""
        with self._lock:
            now = self._clock()
            if now - self._looked < self._interval:
                return self._value
            self._looked = now
            # Taken before reading: a change in between shows at the next look.
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        files = [str(path) for path in self._paths]
        try:
            self._value = self._read()
        except BadSettings as error:
            log.error("changed files are no good", files=files, kept=self._fallback is None, error=str(error))
            if self._fallback is not None:
                self._value = self._fallback
        else:
            log.info("files re-read", files=files)

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Time of change, size and inode; of what a link leads to, since mounted secrets change by links."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_bytes(path: Path, *, flag: str) -> bytes:
    """A file's content; raises `BadSettings` that names the flag."""
    try:
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or "it cannot be read"
        raise BadSettings(f"{flag} {str(path)!r}: {why}; give a file that this user may read") from None
