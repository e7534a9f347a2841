"""One job a results folder: an advisory lock that a dead holder cannot keep.

`flock` belongs to the open file, so the kernel drops it when the last process that has it open is gone,
however it went. The supervisor hands the open file to its workers: while an orphaned worker still writes,
nobody else may. It knows nothing of what is done under the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer_job.errors import Locked
from trainer_job.files import read_json


def alive(holder: dict[str, object]) -> bool:
    """Whether the recorded supervisor still runs, as far as this host can tell."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _try(handle: int, shared: bool) -> bool:
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file inside the block, waiting for whoever else does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def hold(
    folder: Path,
    *,
    patience: float = 15.0,
    pause: float = 0.25,
    shared: bool = False,
    on_takeover: Callable[[dict[str, object]], None] | None = None,
) -> Iterator[int]:
    """Hold the folder's lock; yields the open file's descriptor, for handing on to workers.

    When the recorded holder is dead but its workers are still saving, waits up to `patience` seconds for
    them. `shared` lets other shared holders in, who leave no record, but nobody who wants it alone. Raises
    Locked when a living job has the folder. `on_takeover` is told about a dead holder's record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        deadline = time.monotonic() + patience
        holder = read_json(path) or {}
        while not _try(handle, shared):
            holder = read_json(path) or {}
            if alive(holder) or time.monotonic() > deadline:
                who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                raise Locked(
                    f"{folder}: in use by {who}; one job a results folder: wait for it, stop it, or set "
                    "another `results`"
                )
            time.sleep(pause)
        if shared:
            yield handle
            return
        if holder and on_takeover is not None:
            on_takeover(holder)
        record = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(time.time(), 3)}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)
        yield handle
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
