"""One job a unit on a shared volume; the dead hold nothing, whatever the clocks say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer_job.errors import Locked
from trainer_job.files import read_json, write_json
from trainer_job.leases import Leases


class Clock:
    """Time passes while somebody waits; `meanwhile` happens in each wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


def leases(folder: Path, clock: Clock | None = None) -> Leases:
    time = clock or Clock()
    return Leases(folder, clock=time, pause=time.pause)


def foreign(folder: Path, *, beat: int = 1) -> Path:
    """A lease of a job on another machine."""
    path = folder / "moe+0.json"
    write_json(path, {"token": "theirs", "pid": 1, "host": "elsewhere", "beat": beat})
    return path


def test_a_lease_is_held_and_given_back(tmp_path: Path) -> None:
    with leases(tmp_path).hold(["moe:0", "none:shuffled:1"]):
        owner = read_json(tmp_path / "moe+0.json")
        assert owner is not None
        assert owner["host"] == socket.gethostname()
        write_json(tmp_path / "moe+0.json", {**owner, "pid": os.getppid()})  # another process of this machine
        with (
            pytest.raises(Locked, match="moe:0 is being trained by process"),
            leases(tmp_path).hold(["moe:0"]),
        ):
            pass
    assert list(tmp_path.glob("*.json")) == []


def test_a_container_that_starts_again_takes_over_from_its_former_life(tmp_path: Path) -> None:
    record = {"token": "former", "pid": os.getpid(), "host": socket.gethostname(), "beat": 5}
    write_json(tmp_path / "moe+0.json", record)
    clock = Clock()
    with leases(tmp_path, clock).hold(["moe:0"]):
        assert clock.now == 0


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    record = {"token": "old", "pid": gone.pid, "host": socket.gethostname(), "beat": 5}
    write_json(tmp_path / "moe+0.json", record)
    clock = Clock()
    with leases(tmp_path, clock).hold(["moe:0"]):
        assert clock.now == 0  # nobody waited


def test_a_silent_job_elsewhere_is_dead_after_its_time_by_our_own_clock(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = Clock()
    with leases(tmp_path, clock).hold(["moe:0"]):
        assert clock.now >= 60
        assert (read_json(tmp_path / "moe+0.json") or {})["token"] != "theirs"


def test_a_job_elsewhere_that_renews_is_alive(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = Clock()
    clock.meanwhile = lambda: (foreign(tmp_path, beat=int(clock.now) + 2), None)[1]
    with pytest.raises(Locked, match="on elsewhere"), leases(tmp_path, clock).hold(["moe:0"]):
        pass
    assert json.loads((tmp_path / "moe+0.json").read_text())["token"] == "theirs"


def test_renewing_changes_the_file_and_notices_a_thief(tmp_path: Path) -> None:
    clock = Clock()
    mine = leases(tmp_path, clock)
    with mine.hold(["moe:0"]):
        before = (tmp_path / "moe+0.json").read_text()
        clock.now += 11
        mine.renew()
        assert (tmp_path / "moe+0.json").read_text() != before
        foreign(tmp_path)
        clock.now += 1
        mine.renew()  # too soon to look
        clock.now += 11
        with pytest.raises(Locked):
            mine.renew()
    assert (tmp_path / "moe+0.json").exists()  # not ours to remove
