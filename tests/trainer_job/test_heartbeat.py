"""A process without progress is noticed by an own clock, and says where it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer_job.files import read_json
from trainer_job.heartbeat import Heartbeat, Watch, culprit, forget, main_first

HANGS = """
import sys, time
from pathlib import Path
from trainer_job.heartbeat import Heartbeat
def stuck_in_here():
    print("ready", flush=True)
    time.sleep(120)
heart = Heartbeat(Path(sys.argv[1]), int(sys.argv[2]))
heart.start()
heart.beat("training", step=7)
stuck_in_here()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(tmp_path), "1"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_beats_are_written_once_in_a_while_but_phases_at_once(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, 0, probed=tmp_path / "heartbeat", pause=60)
    heart.start()
    heart.beat("training", step=1)
    heart.beat("training", step=2)
    found = read_json(tmp_path / "beat-0.json")
    assert found is not None
    assert (found["step"], found["phase"], found["pid"]) == (1, "training", os.getpid())
    heart.beat("bundling")
    found = read_json(tmp_path / "beat-0.json")
    assert found is not None
    assert (found["step"], found["phase"]) == (2, "bundling")
    assert (tmp_path / "heartbeat").exists()
    heart.stop()
    assert not (tmp_path / "beat-0.json").exists()


def test_a_rank_is_stalled_when_its_beat_has_not_changed_for_the_limit(tmp_path: Path) -> None:
    clock = Clock()
    hearts = [Heartbeat(tmp_path, rank, pause=0) for rank in (0, 1)]
    watch = Watch(tmp_path, 10, clock=clock)
    for heart in hearts:
        heart.beat("training", step=1)
    assert watch.stalled() == []
    clock.now = 9
    hearts[0].beat("training", step=2)
    assert watch.stalled() == []
    clock.now = 11
    assert watch.stalled() == [1]
    clock.now = 30
    assert watch.stalled() == [1, 0]
    hearts[1].beat("training", step=2)
    assert watch.stalled() == [0]


def test_file_times_from_another_century_mean_nothing(tmp_path: Path) -> None:
    clock = Clock()
    Heartbeat(tmp_path, 0).beat("training", step=1)
    watch = Watch(tmp_path, 10, clock=clock)
    os.utime(tmp_path / "beat-0.json", (0, 0))
    assert watch.stalled() == []
    os.utime(tmp_path / "beat-0.json", (4e9, 4e9))
    clock.now = 9
    assert watch.stalled() == []


def test_preparing_may_take_longer_and_a_watch_can_be_switched_off(tmp_path: Path) -> None:
    clock = Clock()
    Heartbeat(tmp_path, 0).beat("preparing")
    watch = Watch(tmp_path, 10, clock=clock)
    watch.stalled()
    clock.now = 99
    assert watch.stalled() == []
    clock.now = 101
    assert watch.stalled() == [0]
    assert Watch(tmp_path, None, clock=clock).stalled() == []


def test_a_hanging_process_shows_its_stack(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    stacks = Watch(tmp_path, 1).examine(patience=20)
    assert "stuck_in_here" in stacks[1]


def test_a_stopped_process_is_said_to_be_stopped(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    os.kill(hanging.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while (
        "T (stopped)" not in Path(f"/proc/{hanging.pid}/status").read_text() and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    assert "stopped" in Watch(tmp_path, 1).examine(patience=0.3)[1]


def test_a_dead_process_is_said_to_be_gone(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    hanging.kill()
    hanging.wait()
    assert "is gone" in Watch(tmp_path, 1).examine(patience=0.3)[1]


def test_a_process_that_ended_is_not_stalled(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    clock = Clock()
    watch = Watch(tmp_path, 10, clock=clock)
    assert watch.stalled() == []
    clock.now = 11
    assert watch.stalled() == [1]
    hanging.kill()
    hanging.wait()
    assert watch.stalled() == []


def test_the_culprit_is_the_rank_that_the_others_wait_for() -> None:
    waiting = "File distributed_c10d.py, line 1 in all_reduce"
    assert culprit({0: waiting, 1: "File x.py, line 3 in stuck"}, [0, 1]) == 1
    assert culprit({0: waiting, 1: waiting}, [1, 0]) == 1


def test_only_the_main_thread_says_where_a_rank_stands_and_it_is_shown_first() -> None:
    helper = "Thread 0x1 (most recent call first):\n  File distributed_c10d.py, line 1 in barrier"
    stuck = f"{helper}\n\nCurrent thread 0x2 (most recent call first):\n  File x.py, line 3 in stuck"
    backward = "Current thread 0x3 (most recent call first):\n  File graph.py, line 9 in _engine_run_backward"
    assert culprit({0: backward, 1: stuck}, [0, 1]) == 1
    assert main_first(stuck).splitlines()[1] == "  File x.py, line 3 in stuck"
    assert main_first(stuck).endswith("in barrier")
    assert main_first("") == ""


def test_an_earlier_life_is_forgotten(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, 3)
    heart.start()
    heart.stop()
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
