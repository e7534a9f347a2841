"""What goes wrong inside a worker, and what the supervisor makes of it: real processes, injected faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_job.faults import faulty_sweep
from tests.trainer_job.tiny import Tiny, make_tiny, train_here
from trainer_job.config import RunConfig
from trainer_job.errors import JobError, PartialFailure
from trainer_job.ranks import StopFlag
from trainer_job.sweep import Sweep
from trainer_job.units import Layout, Unit, read_status

pytestmark = pytest.mark.slow
chaos = pytest.mark.skipif("CHAOS" not in os.environ, reason="one of many faults: `make chaos` has them all")

UNIT = Unit("none", 0)
SHORT = ("variants=[none]", "training.epochs=2", "training.evaluations=2", "training.log_every=1")
TWO = ("hardware.processes=2", "hardware.strategy=ddp")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reference(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same unit, never disturbed, by as many threads: sums in another order end in other weights."""
    config = tiny.config(tmp_path_factory.mktemp("reference"), *SHORT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train_here(config, flag=StopFlag(None)) == 0
    torch.set_num_threads(threads)
    return record(config)


def record(config: RunConfig) -> dict[str, Any]:
    path = Layout.of(config).unit(UNIT) / "unit.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def sweep(tiny: Tiny, tmp_path: Path) -> Callable[..., tuple[Sweep, RunConfig]]:
    def make(*settings: str, **fault: Any) -> tuple[Sweep, RunConfig]:
        config = tiny.config(tmp_path, *SHORT, *settings)
        made = faulty_sweep(config, fault)
        return made, config

    return make


@pytest.mark.parametrize("settings", [(), pytest.param(TWO, marks=chaos)], ids=["one", "two"])
def test_when_memory_runs_out_batches_are_halved_at_the_same_global_batch(
    sweep: Callable[..., Any],
    reference: dict[str, Any],
    tmp_path: Path,
    settings: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    made, config = sweep(*settings, kind="memory", step=5, once=str(tmp_path / "once"))
    assert made.run()
    found = record(config)
    share = 16 // (2 if settings else 1)
    assert found["micro_batch_size"] == share // 2
    assert found["accumulation_steps"] == 2
    assert found["out_of_memory"] == [
        {
            "step": 4,
            "phase": "training",
            "micro_batch_size": {"from": share, "to": share // 2},
            "eval_batch_size": {"from": 64, "to": 32},
        }
    ]
    assert found["steps"] == reference["steps"]
    losses = [[point["loss"] for point in unit["curves"]["train"]] for unit in (found, reference)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=0.2)
    assert made.last["units"][0]["out_of_memory"] == found["out_of_memory"]


@chaos
def test_memory_that_is_never_enough_fails_the_unit(sweep: Callable[..., Any], tmp_path: Path) -> None:
    made, config = sweep("training.micro_batch_size=1", "training.eval_batch_size=1", kind="memory", step=2)
    with pytest.raises(JobError, match="every unit failed"):
        made.run()
    assert read_status(Layout.of(config).unit(UNIT))["error"]["kind"] == "OutOfMemory"


def test_a_unit_that_fails_for_good_leaves_the_others_complete(sweep: Callable[..., Any]) -> None:
    made, _ = sweep("variants=[none, layers]", kind="nan", step=3, unit="layers:0")
    with pytest.raises(PartialFailure) as caught:
        made.run()
    assert caught.value.exit_code == 70
    assert made.last["status"] == "partial"
    states = {unit["variant"]: unit["status"] for unit in made.last["units"]}
    assert states == {"none": "complete", "layers": "failed"}
    failed = next(unit for unit in made.last["units"] if unit["status"] == "failed")
    assert "not finite at step" in failed["error"]["message"]


@chaos
def test_a_loss_that_is_not_finite_once_is_trained_again(
    sweep: Callable[..., Any], reference: dict[str, Any], tmp_path: Path
) -> None:
    made, config = sweep(kind="nan", step=3, once=str(tmp_path / "once"))
    assert made.run()
    assert record(config)["weights_sha256"] == reference["weights_sha256"]


@chaos
@pytest.mark.parametrize("kind", ["hang", "SIGSTOP"])
def test_a_rank_that_stalls_is_named_with_its_stack_and_the_unit_goes_on(
    sweep: Callable[..., Any],
    reference: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    once = str(tmp_path / "once")
    made, config = sweep(*TWO, "hardware.stall_seconds=30", kind=kind, step=8, rank=1, once=once)
    assert made.run()
    assert record(config)["status"] == "complete"
    said = "".join(capfd.readouterr())
    assert "rank 1 made no progress for 30 s" in said
    assert ("in hang" in said) if kind == "hang" else ("stopped" in said)


@chaos
def test_a_clock_that_jumps_back_a_day_changes_nothing(
    sweep: Callable[..., Any], reference: dict[str, Any]
) -> None:
    made, config = sweep("hardware.stall_seconds=60", kind="clock", step=4)
    assert made.run()
    assert record(config)["weights_sha256"] == reference["weights_sha256"]


@chaos
def test_a_full_disk_ends_the_job_and_blames_no_unit(sweep: Callable[..., Any]) -> None:
    made, config = sweep("variants=[none, layers]", kind="full", step=3, unit="layers:0")
    with pytest.raises(JobError, match="No space left on device") as caught:
        made.run()
    assert caught.value.exit_code == 1
    assert read_status(Layout.of(config).unit(UNIT))["state"] == "complete"
