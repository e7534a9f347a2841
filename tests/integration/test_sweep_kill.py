"""The sweep as its own process, stopped and killed for real: nothing is lost, and the weights end up the
same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.tiny import Tiny, make_tiny, train_here
from trainer_job.__main__ import main
from trainer_job.checkpoints import MARKER, list_checkpoints
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, Unit

pytestmark = pytest.mark.slow

UNIT = Unit("moe", 0)
SETTINGS = ("variants=[moe]", "training.epochs=12", "training.evaluations=6", "training.log_every=1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reference(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the same unit, never interrupted."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = tiny.config(tmp_path_factory.mktemp("reference"), *SETTINGS)
    assert train_here(config, flag=StopFlag(None)) == 0
    torch.set_num_threads(threads)
    return record(Layout.of(config))


def record(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.unit(UNIT) / "unit.json").read_text(encoding="utf-8"))
    return found


class Job:
    """`python -m trainer_job run` on a folder of its own."""

    def __init__(self, tiny: Tiny, place: Path, *settings: str) -> None:
        chosen = settings or SETTINGS
        self.layout = Layout.of(tiny.config(place, *chosen))
        overrides = [part for setting in chosen for part in ("--set", setting)]
        self.arguments = ["run", "--config", str(place / "tiny.yaml"), *overrides]
        self.output = place / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.output.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer_job", *self.arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        return self.process

    def finish(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=240)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 200
        while not happened():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def step(self) -> int:
        """The last step in the unit's log."""
        try:
            lines = (self.layout.unit_logs(UNIT) / "log.jsonl").read_text(encoding="utf-8").splitlines()
            return int(json.loads(lines[-1])["step"])
        except (OSError, ValueError, IndexError):
            return 0

    def worker(self) -> int:
        """Process id of the worker, whichever thread of the supervisor began it."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        (worker,) = [
            child
            for child in children
            if b"trainer_job.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        return worker

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def job(tiny: Tiny, tmp_path: Path) -> Iterator[Job]:
    made = Job(tiny, tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_stopped_then_truncated_the_next_run_ends_in_the_same_weights(
    job: Job, reference: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    process = job.start()
    job.wait_for(lambda: job.step() > 60)
    assert main(job.arguments) == 1  # a second job on the same folder
    assert "in use by process" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    assert job.finish() == 75, job.text()
    assert json.loads(job.layout.record.read_text(encoding="utf-8"))["status"] == "preempted"
    *_, last = list_checkpoints(job.layout.unit(UNIT))
    assert (last / MARKER).is_file()
    optimizer = last / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    job.start()
    assert job.finish() == 0, job.text()
    assert f'"checkpoint": "{last.name}"' in job.text()
    assert "checkpoint_passed_over" in job.text()
    found = record(job.layout)
    assert found["resumed_from_step"] < int(last.name.partition("-")[2])
    assert found["weights_sha256"] == reference["weights_sha256"]
    assert found["test"] == reference["test"]
    assert json.loads(job.layout.record.read_text(encoding="utf-8"))["status"] == "complete"


def test_a_killed_worker_is_started_again_and_ends_in_the_same_weights(
    job: Job, reference: dict[str, Any]
) -> None:
    job.start()
    job.wait_for(lambda: job.step() > 60)
    os.kill(job.worker(), signal.SIGKILL)
    assert job.finish() == 0, job.text()
    assert "SIGKILL" in job.text()
    found = record(job.layout)
    assert found["resumed_from_step"] is not None
    assert found["weights_sha256"] == reference["weights_sha256"]


def test_when_the_supervisor_is_killed_the_worker_saves_and_leaves(
    job: Job, reference: dict[str, Any]
) -> None:
    process = job.start()
    job.wait_for(lambda: job.step() > 60)
    worker = job.worker()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    *_, last = list_checkpoints(job.layout.unit(UNIT))
    assert (last / MARKER).is_file()
    job.start()
    assert job.finish() == 0, job.text()
    assert "lock_taken_over" in job.text()
    assert record(job.layout)["weights_sha256"] == reference["weights_sha256"]
