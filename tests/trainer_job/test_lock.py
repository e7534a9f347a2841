"""One job a results folder; the dead hold nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer_job.errors import Locked
from trainer_job.lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from trainer_job.lock import hold
with hold(Path(sys.argv[1])) as handle:
    if len(sys.argv) > 2:
        import subprocess
        command = [sys.executable, "-c", "import time; time.sleep(float(%r))" % sys.argv[2]]
        child = subprocess.Popen(command, pass_fds=(handle,), stdout=subprocess.DEVNULL)
        print("held", child.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("held")
    return process


def test_a_second_job_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = start(str(tmp_path))
    try:
        with pytest.raises(Locked, match=f"in use by process {first.pid}"), hold(tmp_path):
            pass
    finally:
        first.kill()
        first.communicate()


def test_the_lock_of_a_killed_job_is_taken_over(tmp_path: Path) -> None:
    first = start(str(tmp_path))
    first.kill()
    first.communicate()
    told: list[dict[str, object]] = []
    with hold(tmp_path, on_takeover=told.append):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert told[0]["pid"] == first.pid


def test_an_orphaned_worker_is_waited_for(tmp_path: Path) -> None:
    first = start(str(tmp_path), "1.5")
    first.kill()
    first.communicate()
    began = time.monotonic()
    with hold(tmp_path, pause=0.05):
        assert time.monotonic() - began > 0.3


def test_patience_ends(tmp_path: Path) -> None:
    first = start(str(tmp_path), "5")
    first.kill()
    first.communicate()
    with pytest.raises(Locked), hold(tmp_path, patience=0.2, pause=0.05):
        pass


def test_a_lock_given_back_leaves_no_record(tmp_path: Path) -> None:
    told: list[dict[str, object]] = []
    for _ in range(2):
        with hold(tmp_path, on_takeover=told.append):
            pass
    assert told == []


def test_a_holder_on_another_host_counts_as_alive(tmp_path: Path) -> None:
    first = start(str(tmp_path))
    try:
        (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
        with pytest.raises(Locked, match="elsewhere"), hold(tmp_path):
            pass
    finally:
        first.kill()
        first.communicate()
