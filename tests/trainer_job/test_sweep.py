"""The supervisor with a scripted worker: what is tried again or given up, and which exit code follows."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.tiny import Tiny
from trainer_job.config import RunConfig
from trainer_job.errors import (
    DataError,
    JobError,
    Locked,
    PartialFailure,
    Preempted,
    ResultsMismatch,
    TrainingFailed,
    WeightsError,
)
from trainer_job.files import read_json
from trainer_job.folder import source_signature
from trainer_job.launch import Devices
from trainer_job.lock import hold
from trainer_job.process import StopRequest
from trainer_job.sweep import Sweep
from trainer_job.units import Layout, Unit, config_hash, read_status

# Stands in for trainer_job.worker: reads the same order, follows a script, writes the same files.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from trainer_job.config import RunConfig
from trainer_job.errors import TrainingFailed, WeightsError
from trainer_job.failures import write_failure
from trainer_job.files import write_json
from trainer_job.units import Layout, Unit, config_hash, identity, write_status

order_file = Path(sys.argv[1])
order = json.loads(order_file.read_text())
config = RunConfig.model_validate(order["config"])
layout, digest = Layout.of(config), config_hash(config)
plan = json.loads((order_file.parent / "script.json").read_text())
fingerprint = plan.get("fingerprint", "f")
if plan.get("weights"):
    write_failure(layout.state, WeightsError("no such folder"), unit=None, rank=0)
    sys.exit(3)
write_json(layout.state / "data.json", {"fingerprint": fingerprint, "signature": order["signature"]})
for variant, seed in order["units"]:
    unit = Unit(variant, seed)
    folder = layout.unit(unit)
    log = order_file.parent / "attempts.log"
    with log.open("a") as stream:
        stream.write(unit.name + "\\n")
    write_status(folder, "running")
    todo = plan.get(variant, [])
    done = log.read_text().splitlines().count(unit.name)
    act = todo[min(done, len(todo)) - 1] if todo else "ok"
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        signal.signal(signal.SIGTERM, lambda *_: (write_status(folder, "preempted"), sys.exit(75)))
        (order_file.parent / "hanging").touch()
        time.sleep(60)
    if act == "preempted":
        write_status(folder, "preempted")
        sys.exit(75)
    if act == "idle":
        sys.exit(0)
    if act not in ("ok", "killed when done"):
        write_failure(layout.state, TrainingFailed(act), unit=unit, rank=0)
        sys.exit(42)
    ident = identity(unit, fingerprint=fingerprint, config_digest=digest)
    record = {"variant": variant, "seed": seed, "identity": ident, "config_hash": digest}
    write_json(folder / "unit.json", record)
    write_json(folder / "bundle" / "manifest.json", {})
    write_status(folder, "complete")
    if act == "killed when done":
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Stage:
    """A sweep of `none` and `moe` whose worker follows `script`."""

    def __init__(self, config: RunConfig, script: dict[str, Any]) -> None:
        self.config, self.layout = config, Layout.of(config)
        self.records: list[str] = []
        self.stop = StopRequest()
        self.layout.state.mkdir(parents=True, exist_ok=True)
        (self.layout.state / "script.json").write_text(json.dumps(script))

    def run(self) -> bool:
        def command(devices: Devices, order: Path) -> list[str]:
            return [sys.executable, "-c", SCRIPT, str(order)]

        def record(status: str) -> dict[str, Any]:
            self.records.append(status)
            return {"status": status}

        self.sweep = Sweep(
            config=self.config,
            layout=self.layout,
            devices=Devices("cpu", 1),
            environ={},
            record=record,
            stop=self.stop,
            command=command,
        )
        return self.sweep.run()

    @property
    def attempts(self) -> list[str]:
        return (self.layout.state / "attempts.log").read_text().splitlines()

    def state(self, variant: str) -> str:
        state: str = read_status(self.layout.unit(Unit(variant, 0)))["state"]
        return state


@pytest.fixture
def stage(tiny: Tiny, tmp_path: Path) -> Callable[..., Stage]:
    def make(*settings: str, **script: Any) -> Stage:
        return Stage(tiny.config(tmp_path, "variants=[none, moe]", *settings), script)

    return make


def test_everything_complete_then_nothing_to_do(stage: Callable[..., Stage]) -> None:
    first = stage()
    assert first.run() is True
    assert first.records[-1] == "complete"
    assert first.attempts == ["none:0", "moe:0"]
    (first.layout.record).write_text(json.dumps({**whole_record(first.config), "kept": True}))
    again = stage()
    assert again.run() is False
    assert again.records == []  # a complete record is left as it is
    assert again.sweep.last["kept"] is True
    assert again.attempts == ["none:0", "moe:0"]


def whole_record(config: RunConfig) -> dict[str, Any]:
    units = [{"variant": variant, "seed": 0, "status": "complete"} for variant in ("none", "moe")]
    return {"status": "complete", "config_hash": config_hash(config), "units": units}


@pytest.mark.parametrize("wreck", [{"units": []}, {"config_hash": "of another"}, {"status": "running"}])
def test_a_wrecked_record_of_a_complete_sweep_is_made_anew(
    stage: Callable[..., Stage], wreck: dict[str, Any]
) -> None:
    stage().run()
    again = stage()
    again.layout.record.write_text(json.dumps({**whole_record(again.config), **wreck}))
    assert again.run() is False
    assert again.records == ["complete"]


def test_a_missing_record_of_a_complete_sweep_is_made_anew(stage: Callable[..., Stage]) -> None:
    stage().run()
    again = stage()
    assert again.run() is False
    assert again.records == ["complete"]


def test_a_failure_is_tried_again_and_the_rest_goes_on(stage: Callable[..., Stage]) -> None:
    case = stage(none=["not finite at step 3", "ok"])
    assert case.run()
    assert case.attempts == ["none:0", "none:0", "moe:0"]
    assert case.state("none") == "complete"


def test_a_killed_worker_is_tried_again(stage: Callable[..., Stage]) -> None:
    case = stage(moe=["kill", "ok"])
    assert case.run()
    assert case.attempts == ["none:0", "moe:0", "moe:0"]


@pytest.mark.parametrize("variant", ["none", "moe"])
def test_a_worker_that_is_killed_between_units_or_after_the_last_costs_nothing(
    stage: Callable[..., Stage], variant: str
) -> None:
    case = stage(**{variant: ["killed when done"]})
    assert case.run()
    assert case.attempts == ["none:0", "moe:0"]
    assert case.records[-1] == "complete"


def test_the_same_failure_twice_gives_one_unit_up_and_ends_in_70(stage: Callable[..., Stage]) -> None:
    case = stage(none=["not finite at step 3", "not finite at step 5"])
    with pytest.raises(PartialFailure, match=r"1 of 2 units failed for good \(none:0\)"):
        case.run()
    assert case.state("none") == "failed"
    assert case.state("moe") == "complete"
    assert case.records[-1] == "partial"
    status = read_status(case.layout.unit(Unit("none", 0)))
    assert status["error"]["kind"] == "TrainingFailed"


def test_all_units_failing_ends_in_42(stage: Callable[..., Stage]) -> None:
    case = stage(none=["boom", "boom"], moe=["bang", "bang"])
    with pytest.raises(TrainingFailed, match="every unit failed"):
        case.run()
    assert case.records[-1] == "partial"


def test_a_failed_unit_is_tried_again_by_the_next_run(stage: Callable[..., Stage]) -> None:
    with pytest.raises(PartialFailure):
        stage(none=["boom", "boom"]).run()
    assert stage().run()


def test_weights_that_are_missing_end_the_job(stage: Callable[..., Stage]) -> None:
    case = stage(weights=True)
    with pytest.raises(WeightsError, match="no such folder"):
        case.run()
    assert case.records[-1] == "partial"


def test_data_that_are_missing_end_it_before_any_worker(
    tiny: Tiny, stage: Callable[..., Stage], tmp_path: Path
) -> None:
    case = stage(f"data.root={tmp_path / 'absent'}")
    with pytest.raises(DataError, match="not a folder"):
        case.run()
    assert not (case.layout.state / "attempts.log").exists()


def test_a_stopped_sweep_ends_in_75_and_keeps_what_is_finished(stage: Callable[..., Stage]) -> None:
    case = stage(moe=["hang"])
    ask = case.layout.state / "hanging"

    class Asking(StopRequest):
        @property
        def requested(self) -> bool:
            if ask.exists() and not self.times:
                self.note(signal.SIGTERM)
            return self.times > 0

    case.stop = Asking()
    with pytest.raises(Preempted, match="SIGTERM with 1 of 2 units to go"):
        case.run()
    assert case.state("none") == "complete"
    assert case.state("moe") == "preempted"
    assert case.records[-1] == "preempted"


def test_a_worker_stopped_by_somebody_else_counts_as_preempted(stage: Callable[..., Stage]) -> None:
    case = stage(none=["preempted"])
    with pytest.raises(Preempted, match="a signal to the worker"):
        case.run()


def test_a_worker_that_does_nothing_is_not_started_for_ever(stage: Callable[..., Stage]) -> None:
    with pytest.raises(JobError, match="finished nothing"):
        stage(none=["idle"]).run()


def test_a_folder_of_another_configuration_is_refused(stage: Callable[..., Stage]) -> None:
    stage().run()
    other = stage("training.epochs=9", "model.strata=3")
    with pytest.raises(ResultsMismatch) as caught:
        other.run()
    assert "different: model.strata, training.epochs" in str(caught.value)
    assert caught.value.exit_code == 2


def test_more_variants_and_seeds_extend_a_folder(stage: Callable[..., Stage]) -> None:
    stage().run()
    wider = stage("variants=[none, moe, layers]", "seeds=[0, 1]")
    assert wider.run()
    assert set(wider.attempts) == {f"{name}:{seed}" for name in ("none", "moe", "layers") for seed in (0, 1)}
    assert len(wider.attempts) == 6


def test_touched_sources_are_read_again(tiny: Tiny, stage: Callable[..., Stage]) -> None:
    stage().run()
    before = source_signature(stage().config)
    path = tiny.root / "shop-test.jsonl"
    path.write_bytes(path.read_bytes())  # same content, another time
    case = stage()
    assert source_signature(case.config) != before
    assert case.run() is True
    assert case.attempts == ["none:0", "moe:0"]  # the worker only looked
    assert (read_json(case.layout.state / "data.json") or {})["signature"] == source_signature(case.config)


def test_a_second_job_is_refused(stage: Callable[..., Stage]) -> None:
    case = stage()
    with hold(case.layout.results), pytest.raises(Locked):
        case.run()
