"""How a process that has nothing left to do ends: at once, its sockets first.

The interpreter's own end takes a tenth of a second, and the kernel's release of gigabytes as long: meanwhile
calls would come in that nobody answers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
FIRST = 3  # 0 to 2 are where the log goes, which may be a socket


def leave() -> None:
    """End this process with exit code 0; nothing of it is left to run, `atexit` included."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    hang_up()
    os._exit(0)


def hang_up() -> None:
    """End every connection of this process; who listens goes first, so that nobody connects again."""
    for ours in sorted(_sockets(), key=lambda ours: not _listens(ours)):
        with contextlib.suppress(OSError):  # not connected
            ours.shutdown(socket.SHUT_RDWR)
        ours.detach()  # whoever owns it closes it


def _sockets() -> Iterator[socket.socket]:
    if not DESCRIPTORS.is_dir():  # other systems than Linux wait for the kernel
        return
    for entry in DESCRIPTORS.iterdir():
        if int(entry.name) >= FIRST:
            with contextlib.suppress(OSError):  # no socket, or closed by now
                yield socket.socket(fileno=int(entry.name))


def _listens(ours: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return bool(ours.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False
