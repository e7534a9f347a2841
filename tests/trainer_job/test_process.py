"""The supervisor's side of a worker: its end, the wish to stop, and the end of patience."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trainer_job.process import StopRequest, describe_exit, run_worker

POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


@pytest.fixture
def lock() -> Iterator[int]:
    with tempfile.TemporaryFile() as stream:
        yield stream.fileno()


def run(
    code: str,
    lock: int,
    stop: StopRequest,
    *,
    grace: float = 30,
    on_tick: Callable[[], bool | None] = lambda: None,
) -> int:
    return run_worker(
        [sys.executable, "-c", code],
        environment=os.environ,
        lock=lock,
        stop=stop,
        grace_seconds=grace,
        on_tick=on_tick,
        tick_seconds=0.05,
    )


def test_the_workers_code_comes_back(lock: int) -> None:
    assert run("raise SystemExit(42)", lock, StopRequest()) == 42


def test_a_wish_to_stop_is_passed_on(lock: int) -> None:
    stop = StopRequest()
    threading.Timer(1.0, lambda: stop.note(signal.SIGTERM)).start()
    assert run(POLITE, lock, stop) in (75, -signal.SIGTERM)  # the signal may come before the handler
    assert stop.signal_name == "SIGTERM"


def test_a_worker_that_does_not_stop_is_ended_after_the_grace(lock: int) -> None:
    stop = StopRequest()
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 8:
            stop.note(signal.SIGTERM)

    assert run(STUBBORN, lock, stop, grace=0.3, on_tick=tick) == -signal.SIGKILL


def test_a_second_signal_ends_it_at_once(lock: int) -> None:
    stop = StopRequest()
    stop.note(signal.SIGINT)
    stop.note(signal.SIGINT)
    began = time.monotonic()
    assert run(STUBBORN, lock, stop) < 0
    assert time.monotonic() - began < 10


def test_an_error_while_waiting_leaves_no_worker_behind(lock: int) -> None:
    def tick() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(STUBBORN, lock, StopRequest(), on_tick=tick)


def test_signals_are_listened_to_inside_the_block_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.requested
        assert not stop.impatient
    assert signal.getsignal(signal.SIGTERM) is before


def test_exits_are_described_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-15) == "SIGTERM"
    assert "out-of-memory" in describe_exit(-9)
    assert describe_exit(-99) == "signal 99"


def test_nobody_is_left_of_a_worker_that_is_ended(lock: int, tmp_path: Path) -> None:
    """A rank has a session of its own; here it is stopped, as by a debugger."""
    told = tmp_path / "pid"
    code = f"""
import os, pathlib, signal, subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.kill(rank.pid, signal.SIGSTOP)
aside = pathlib.Path({str(told)!r} + ".new")
aside.write_text(str(rank.pid))
aside.replace({str(told)!r})
time.sleep(60)
"""
    assert run(code, lock, StopRequest(), on_tick=told.exists) == -signal.SIGKILL
    rank = int(told.read_text())
    deadline = time.monotonic() + 10
    while not (gone := ended(rank)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone


def ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)  # its new parent has yet to look
    except psutil.NoSuchProcess:
        return True
