"""Watching one worker process (or torchrun): passing on the wish to stop, and ending it when the grace is
over.

It does not know what the worker does; it returns how the process ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType


class StopRequest:
    """What SIGTERM and SIGINT ask for: first to stop and save, a second time to leave at once."""

    def __init__(self) -> None:
        self.times = 0
        self.signal_name: str | None = None

    @property
    def requested(self) -> bool:
        """Whether anybody asked."""
        return self.times > 0

    @property
    def impatient(self) -> bool:
        """Whether somebody asked again."""
        return self.times > 1

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler: counts, nothing more."""
        self.times += 1
        self.signal_name = signal.Signals(number).name

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle SIGTERM and SIGINT inside the block, and put the earlier handlers back after it."""
        earlier = {number: signal.signal(number, self.note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


def describe_exit(code: int) -> str:
    """A return code in words: a number, or the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, often the out-of-memory killer" if name == "SIGKILL" else name


def run_worker(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    lock: int | None,
    stop: StopRequest,
    grace_seconds: float,
    on_tick: Callable[[], bool | None],
    tick_seconds: float = 0.5,
) -> int:
    """Start the command and wait for its end; returns its code (negative: the signal's number).

    The process gets its own session, so that the terminal's Ctrl-C reaches it once, through us. It inherits
    the descriptor `lock`, so the results folder stays locked while it lives. `on_tick` is called while
    waiting; when it says True, the worker is ended at once.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
        stdin=subprocess.DEVNULL,
    )
    deadline: float | None = None
    try:
        while True:
            try:
                return process.wait(timeout=tick_seconds)
            except subprocess.TimeoutExpired:
                pass
            if stop.requested and deadline is None:
                process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + grace_seconds
            if deadline is not None and (stop.impatient or time.monotonic() > deadline):
                _end_all(process)
            if on_tick():
                _end_all(process)
    finally:
        if process.poll() is None:  # an error in on_tick must not leave a worker behind
            _end_all(process)
            process.wait()


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the worker and everything that it started: torchrun gives each rank a session of its own, and
    one that is stopped, or hangs in a call, does not notice that torchrun is gone.
    """
    import psutil  # of the extra `train`: the command line also starts, and says so, without it

    started: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):  # asked first: an orphan is nobody's child any more
        started = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        with suppress(psutil.NoSuchProcess):
            child.kill()
