"""The heartbeat of each training process, and what it was doing when that stopped.

A process writes what it does while it makes progress; asked by a signal, it writes its stacks, also from
inside a call that never returns. The supervisor sees the beats change by its own monotonic clock, so a jump
of any machine's time means nothing. Neither side knows what is trained.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer_job.files import read_json
from trainer_job.lock import alive

ASK = signal.SIGUSR1
PATIENCE_BEFORE_TRAINING = 10  # times as long: data are read and tokenised without a beat
# Where ranks wait for another one; the gradients' reduction has no Python of its own, it happens in backward.
COLLECTIVES = ("distributed_c10d", "all_reduce", "barrier", "run_backward")


@dataclass
class Heartbeat:
    """One process's side; `folder` belongs to the group of processes that train together.

    `probed` is a file whose age a liveness probe looks at.
    """

    folder: Path
    rank: int
    probed: Path | None = None
    pause: float = 1.0
    phase: str = ""
    step: int | None = None
    beaten: float = float("-inf")

    def start(self) -> None:
        """Say who this is, and write all stacks to a file whenever the supervisor asks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stacks = (self.folder / f"stack-{self.rank}.txt").open("w", encoding="utf-8")
        faulthandler.register(ASK, file=self.stacks, all_threads=True)
        self.beat("preparing")

    def stop(self) -> None:
        """Nobody will ask any more."""
        faulthandler.unregister(ASK)
        self.stacks.close()
        (self.folder / f"beat-{self.rank}.json").unlink(missing_ok=True)

    def beat(self, phase: str, *, step: int | None = None) -> None:
        """Progress was made; written at most once in `pause` seconds, but for a new phase."""
        now, self.step = time.monotonic(), self.step if step is None else step
        if phase == self.phase and now - self.beaten < self.pause:
            return
        self.phase, self.beaten = phase, now
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "phase": phase,
            "step": self.step,
            "beat": now,
        }
        path = self.folder / f"beat-{self.rank}.json"
        with suppress(OSError):  # a full disk is found by those who have to write
            aside = path.with_suffix(".tmp")
            aside.write_text(json.dumps(record), encoding="utf-8")
            aside.replace(path)  # no fsync: only its newest state matters
            if self.probed is not None:
                self.probed.touch()


@dataclass
class Watch:
    """The supervisor's side: which ranks of `folder` have not beaten for `limit` seconds."""

    folder: Path
    limit: float | None
    clock: Callable[[], float] = time.monotonic
    seen: dict[Path, tuple[str, float]] = field(default_factory=dict)

    def stalled(self) -> list[int]:
        """Ranks without a beat for too long, the one that has been still the longest first."""
        if self.limit is None:
            return []
        now, still = self.clock(), []
        for path in sorted(self.folder.glob("beat-*.json")):
            with suppress(OSError):
                text = path.read_text(encoding="utf-8")
                if self.seen.get(path, ("", 0.0))[0] != text:
                    self.seen[path] = (text, now)
            since = now - self.seen[path][1] if path in self.seen else 0.0
            beat = read_json(path) or {}
            if _ended(beat):  # its end is noticed by whoever started it
                continue
            patience = PATIENCE_BEFORE_TRAINING if beat.get("phase") == "preparing" else 1
            if since > self.limit * patience:
                still.append((since, rank_of(path)))
        return [rank for _, rank in sorted(still, reverse=True)]

    def examine(self, *, patience: float = 3.0) -> dict[int, str]:
        """The stacks of each rank on this host; of a process that cannot answer, what the kernel says."""
        pids = {
            rank_of(path): int(beat["pid"])
            for path in self.folder.glob("beat-*.json")
            if (beat := read_json(path)) and beat.get("host") == socket.gethostname()
        }
        for pid in pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, ASK)
        deadline = time.monotonic() + patience
        found: dict[int, str] = {}
        while time.monotonic() < deadline and len(found) < len(pids):
            time.sleep(0.1)
            found = {rank: text for rank in pids if (text := self._stack(rank))}
        if found:
            time.sleep(0.2)  # the last of them may still be writing
        return {rank: self._stack(rank) or kernel_state(pid) for rank, pid in pids.items()}

    def _stack(self, rank: int) -> str:
        with suppress(OSError):
            return (self.folder / f"stack-{rank}.txt").read_text(encoding="utf-8", errors="replace").strip()
        return ""


def _ended(beat: dict[str, Any]) -> bool:
    """Whether the process of a beat was one of this host, and is no more."""
    return bool(beat) and not alive(beat)


def rank_of(path: Path) -> int:
    """The rank in the name of a beat's file."""
    return int(path.stem.rpartition("-")[2])


def main_first(stack: str) -> str:
    """A faulthandler's dump with the main thread, which it writes last, before the others."""
    *others, main = stack.strip().split("\n\n")
    return "\n\n".join([main, *others])


def culprit(stacks: dict[int, str], still: Iterable[int]) -> int:
    """The rank that the others wait for: the first that stands in no collective call, else the stillest."""
    order = [*still, *stacks]
    main = {rank: main_first(text).split("\n\n")[0] for rank, text in stacks.items()}
    waiting = {rank for rank, text in main.items() if any(word in text for word in COLLECTIVES)}
    return next((rank for rank in order if rank not in waiting), order[0])


def kernel_state(pid: int) -> str:
    """State of a process that writes no stack: stopped (T), in the kernel (D), gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        place = Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8")
    except OSError:
        return f"process {pid} is gone, or its state cannot be read here"
    state = next((line for line in status.splitlines() if line.startswith("State:")), "State: unknown")
    return f"process {pid} wrote no stack; {state.split(maxsplit=1)[1]}, waiting in {place or 'nothing'}"


def forget(folder: Path) -> None:
    """Remove the beats and stacks of an earlier life."""
    for pattern in ("beat-*.json", "beat-*.tmp", "stack-*.txt"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
