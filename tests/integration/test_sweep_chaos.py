"""Killed in every way and at every moment, the sweep loses nothing: `make chaos`; the gate takes a few."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.faults import faulty_sweep
from tests.trainer_job.tiny import Tiny, make_tiny
from trainer_job.__main__ import main
from trainer_job.config import RunConfig
from trainer_job.errors import Preempted
from trainer_job.units import Layout, Unit

pytestmark = pytest.mark.slow
chaos = pytest.mark.skipif("CHAOS" not in os.environ, reason="one of many kills: `make chaos` has them all")

UNIT = Unit("moe", 0)
SHORT = ("variants=[moe]", "training.epochs=3", "training.evaluations=4", "training.log_every=1")
RANKS = {1: (), 2: ("hardware.processes=2", "hardware.strategy=ddp")}
# Twelve steps make an epoch, checkpoints are after 9, 18, 27 and 36: what is struck goes on inside the second
# epoch, whose order is not that of the first.
STEPS = 36
SEED = os.environ.get("CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
PHASES = {"training": 20, "evaluation": 27, "saving": 27, "bundling": 0}
TIMES = (
    "seconds",
    "throughput",
    "peak_memory_bytes",
    "resumed_from_step",
    "tokens_per_second",
    "train_seconds",
    "runtime",
    "samples_per_second",
    "steps_per_second",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def references(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """results.json of the same sweep on one and on two ranks, never disturbed; made when first asked for."""

    class Lazy(dict[int, dict[str, Any]]):
        def __missing__(self, ranks: int) -> dict[str, Any]:
            config = tiny.config(tmp_path_factory.mktemp(f"ranks-{ranks}"), *SHORT, *RANKS[ranks])
            assert faulty_sweep(config, {"kind": "none", "step": 10**9}).run()
            self[ranks] = record(config)
            return self[ranks]

    return Lazy()


def record(config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Layout.of(config).record.read_text(encoding="utf-8"))
    return found


def timeless(value: Any) -> Any:
    """A record without what depends on when, how fast and where it was made."""
    if isinstance(value, dict):
        skipped = {*TIMES, "run", "config", "environment"}
        return {name: timeless(item) for name, item in value.items() if name not in skipped}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def finish(config: RunConfig) -> dict[str, Any]:
    """Run again, undisturbed, to the end."""
    faulty_sweep(config, {"kind": "none", "step": 10**9}).run()
    return record(config)


CASES = [
    (ranks, kind, phase)
    for ranks in (1, 2)
    for kind in ("SIGKILL", "SIGTERM", "kill torchrun", "terminate torchrun")
    for phase in PHASES
    if not (kind.endswith("torchrun") and ranks == 1)
]
IN_GATE = {(2, "SIGKILL", "training")}


@pytest.mark.parametrize(
    ("ranks", "kind", "phase"),
    [pytest.param(*case, marks=[] if case in IN_GATE else chaos) for case in CASES],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_a_rank_or_torchrun_is_killed(
    tiny: Tiny,
    references: dict[int, dict[str, Any]],
    tmp_path: Path,
    ranks: int,
    kind: str,
    phase: str,
) -> None:
    config = tiny.config(tmp_path, *SHORT, *RANKS[ranks])
    once = str(tmp_path / "once")
    fault = {"kind": kind, "at": phase, "step": PHASES[phase], "rank": ranks - 1, "once": once}
    if phase == "bundling":
        fault["rank"] = 0  # the only one that bundles
    strike(config, fault)
    assert timeless(finish(config)) == timeless(references[ranks])


def strike(config: RunConfig, fault: dict[str, Any]) -> None:
    """Run into the fault, which must happen; only what asks to stop may preempt."""
    try:
        faulty_sweep(config, fault).run()
    except Preempted:
        assert fault["kind"] in ("SIGTERM", "terminate torchrun")
    assert Path(fault["once"]).exists(), "the fault never struck"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM", "kill torchrun", "terminate torchrun"])
@chaos
def test_either_rank_or_torchrun_is_struck_at_a_random_step(
    tiny: Tiny, references: dict[int, dict[str, Any]], tmp_path: Path, kind: str, rank: int
) -> None:
    config = tiny.config(tmp_path, *SHORT, *RANKS[2])
    step = random.Random(f"{SEED} {kind} {rank}").randint(1, STEPS)
    try:
        strike(config, {"kind": kind, "step": step, "rank": rank, "once": str(tmp_path / "once")})
        assert timeless(finish(config)) == timeless(references[2])
    except BaseException as error:
        error.add_note(f"struck at step {step}; CHAOS_SEED={SEED} draws it again")
        raise


@pytest.mark.parametrize("ranks", [1, 2])
@chaos
def test_with_fetchers_and_micro_batches_a_stop_saves_and_the_rest_is_the_same(
    tiny: Tiny, tmp_path: Path, ranks: int
) -> None:
    more = (
        "hardware.workers=1", "training.micro_batch_size=4", "training.evaluations=1", "training.epochs=8"
    )  # fmt: skip
    settings = (*SHORT, *RANKS[ranks], *more)
    stopped, whole = tiny.config(tmp_path / "stopped", *settings), tiny.config(tmp_path / "whole", *settings)
    once = str(tmp_path / "once")
    sweep = faulty_sweep(
        stopped, {"kind": "terminate supervisor", "at": "training", "step": 20, "once": once}
    )
    with sweep.stop.listening(), pytest.raises(Preempted):  # this process is the supervisor
        sweep.run()
    one, two = finish(stopped), finish(whole)
    assert one["units"][0]["resumed_from_step"] >= 20  # nothing else has saved
    assert timeless(one) == timeless(two)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["kill supervisor", "terminate supervisor"])
@chaos
def test_the_supervisor_is_killed(
    tiny: Tiny, references: dict[int, dict[str, Any]], tmp_path: Path, ranks: int, phase: str, kind: str
) -> None:
    settings = (*SHORT, *RANKS[ranks])
    config, once = tiny.config(tmp_path, *settings), tmp_path / "once"
    fault = {"kind": kind, "at": phase, "step": PHASES[phase], "once": str(once)}
    command = [
        sys.executable,
        "-m",
        "tests.trainer_job.faults",
        "supervise",
        str(tmp_path / "tiny.yaml"),
        *settings,
    ]
    environ = {**os.environ, "FAULT": json.dumps(fault)}
    code = subprocess.run(command, env=environ, check=False, timeout=280).returncode
    assert once.exists(), "the fault never struck"
    assert code == (-signal.SIGKILL if kind == "kill supervisor" else 75) or (
        phase == "bundling" and code == 0
    )
    assert timeless(finish(config)) == timeless(references[ranks])


# --- volumes


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "volume"
    place.mkdir()
    if (
        shutil.which("mount") is None
        or os.geteuid() != 0
        or mount("-t", "tmpfs", "-o", "size=3m", "none", place)
    ):
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def mount(*arguments: object) -> int:
    return subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode


@chaos
def test_a_disk_that_fills_up_ends_the_job_clearly_and_it_goes_on_with_more_room(
    tiny: Tiny,
    references: dict[int, dict[str, Any]],
    tmp_path: Path,
    volume: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the references
    path = tiny.yaml(tmp_path)
    overrides = [part for item in (*SHORT, f"results={volume / 'results'}") for part in ("--set", item)]
    (volume / "ballast").write_bytes(b"x" * 2_300_000)
    assert main(["run", "--config", str(path), *overrides]) == 1
    assert "No space left on device" in capfd.readouterr().err
    assert mount("-o", "remount,size=300m", volume) == 0
    assert main(["run", "--config", str(path), *overrides]) == 0
    found = json.loads((volume / "results" / "results.json").read_text())
    assert found["units"][0]["weights_sha256"] == references[1]["units"][0]["weights_sha256"]


@chaos
def test_a_read_only_volume_is_refused_and_nothing_is_lost(
    tiny: Tiny, tmp_path: Path, volume: Path, capfd: Any
) -> None:
    path = tiny.yaml(tmp_path)
    results = volume / "results"
    results.mkdir()
    assert mount("-o", "remount,ro,size=300m", volume) == 0
    overrides = [part for item in (*SHORT, f"results={results}") for part in ("--set", item)]
    assert main(["run", "--config", str(path), *overrides]) == 1
    assert "Read-only file system" in capfd.readouterr().err
    assert mount("-o", "remount,rw,size=300m", volume) == 0
    assert main(["run", "--config", str(path), *overrides]) == 0


# --- PID 1


HUGE = "1.0e+30"  # a learning rate that ends in values that are not finite


def as_first_process(*arguments: str) -> list[str]:
    return ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "trainer_job", *arguments]


@pytest.fixture
def first() -> None:
    trial = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True
    )
    if trial.returncode:
        pytest.skip("new process namespaces are not allowed here")


@chaos
@pytest.mark.parametrize(
    ("setting", "code", "status"),
    [
        ("variants=[none]", 0, "complete"),
        ("results=/dev/null/results", 1, None),
        ("training.epochs=-1", 2, None),
        ("data.root=/nowhere", 3, None),
        (f"training.learning_rate={HUGE}", 42, "partial"),
        (f"training.geometry_multiplier={HUGE}", 70, "partial"),  # `none` has no geometry to spoil
    ],
)
def test_exit_codes_come_out_of_process_one(
    tiny: Tiny, tmp_path: Path, first: None, setting: str, code: int, status: str | None
) -> None:
    config = tiny.config(tmp_path)
    chosen = ("variants=[none, moe]", "training.max_steps=3", setting)
    overrides = [part for item in chosen for part in ("--set", item)]
    command = as_first_process("run", "--config", str(tmp_path / "tiny.yaml"), *overrides)
    assert subprocess.run(command, check=False, timeout=280).returncode == code
    assert (record(config)["status"] if Layout.of(config).record.exists() else None) == status


@chaos
def test_process_one_saves_and_ends_in_75_when_it_is_terminated(
    tiny: Tiny, tmp_path: Path, first: None
) -> None:
    config = tiny.config(tmp_path, *SHORT, "training.epochs=40")
    overrides = [part for item in (*SHORT, "training.epochs=40") for part in ("--set", item)]
    process = subprocess.Popen(as_first_process("run", "--config", str(tmp_path / "tiny.yaml"), *overrides))
    log = Layout.of(config).unit_logs(UNIT) / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (log.exists() and len(log.read_text().splitlines()) > 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert process.wait(timeout=120) == 75
    assert record(config)["status"] == "preempted"
