"""Who trains a unit, on a volume that several jobs share: one small file a unit, renewed while it is trained.

A lease whose holder is dead on this host is taken over at once. On another host it is dead when its file has
not changed for `expiry` seconds of our own monotonic clock, so clocks need not agree and may jump. It does
not know how units are trained.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer_job.errors import Locked
from trainer_job.files import read_json, write_json
from trainer_job.lock import alive

RENEWED = 10.0  # seconds between two renewals
EXPIRY = 60.0


@dataclass
class Leases:
    """The leases of one job in `folder`; `renew` belongs into its loop."""

    folder: Path
    expiry: float = EXPIRY
    renewed: float = RENEWED
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    held: dict[str, int] = field(default_factory=dict)
    last: float = float("-inf")

    @contextmanager
    def hold(self, names: Iterable[str]) -> Iterator[None]:
        """Hold the leases of these units inside the block. Raises Locked when a living job has one."""
        try:
            for name in names:
                self._acquire(name)
            yield
        finally:
            for name in self.held:
                if self._owner(name).get("token") == self.token:
                    self._path(name).unlink(missing_ok=True)
            self.held.clear()

    def renew(self) -> None:
        """Say that we live; raises Locked when somebody else took a lease for dead and has it now."""
        now = self.clock()
        if now - self.last < self.renewed:
            return
        self.last = now
        for name in self.held:
            owner = self._owner(name)
            if owner and owner.get("token") != self.token:
                raise Locked(self._refusal(name, owner))
            self._write(name)

    def _acquire(self, name: str) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664))
        except FileExistsError:
            owner = self._owner(name)
            if not self._dead(name, owner):
                raise Locked(self._refusal(name, owner)) from None
        self.held[name] = 0
        self._write(name)
        if self._owner(name).get("token") != self.token:  # another one took it at the same moment
            raise Locked(self._refusal(name, self._owner(name)))

    def _dead(self, name: str, owner: dict[str, Any]) -> bool:
        if owner.get("host") == socket.gethostname():  # the process number is ours: a container's former life
            return owner.get("pid") == os.getpid() or not alive(owner)
        before = self._state(name)
        deadline = self.clock() + self.expiry
        while self.clock() < deadline:
            self.pause(min(1.0, self.expiry / 10))
            if self._state(name) != before:
                return not self._path(name).exists()
        return True

    def _write(self, name: str) -> None:
        self.held[name] += 1
        record = {
            "token": self.token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "beat": self.held[name],
        }
        write_json(self._path(name), record)

    def _owner(self, name: str) -> dict[str, Any]:
        return read_json(self._path(name)) or {}

    def _state(self, name: str) -> str | None:
        with suppress(OSError):
            return self._path(name).read_text(encoding="utf-8")
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(':', '+')}.json"

    def _refusal(self, name: str, owner: dict[str, Any]) -> str:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        return (
            f"{self._path(name)}: {name} is being trained by {who}; one job a unit: wait for it, or stop it"
        )
