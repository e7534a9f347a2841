"""One unit, trained for real on a tiny encoder: it learns, resumes bit for bit, and records what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stratified_models.bundle import read_bundle
from tests.trainer_job.conftest import Swept
from tests.trainer_job.tiny import Tiny, train_here
from trainer_job.checkpoints import list_checkpoints
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, Unit, read_status


class StopAfter(StopFlag):
    """A flag that is raised at a given step: it is asked once before the unit, then after each step."""

    def __init__(self, step: int) -> None:
        super().__init__(None)
        self.left = step

    def raised(self) -> bool:
        self.left -= 1
        return self.left < 0


def record_of(place: Path, unit: Unit) -> dict[str, Any]:
    """unit.json below `place`."""
    text = (place / "results" / unit.variant / f"seed-{unit.seed}" / "unit.json").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record


@pytest.mark.parametrize(
    ("variant", "step"), [("none", 5), ("none", 12), ("moe", 17)]
)  # inside the first epoch of 12 steps, at its evaluation, inside the second
def test_a_stopped_unit_goes_on_to_bit_identical_weights(
    swept: Swept, tiny: Tiny, tmp_path: Path, variant: str, step: int
) -> None:
    unit = Unit(variant, 0)
    config = tiny.config(tmp_path, f"variants=[{variant}]")
    folder = Layout.of(config).unit(unit)
    assert train_here(config, flag=StopAfter(step)) == 75
    assert read_status(folder)["state"] == "preempted"
    assert not (folder / "unit.json").exists()
    assert train_here(config, flag=StopFlag(None)) == 0
    resumed, reference = record_of(tmp_path, unit), record_of(swept.yaml.parent, unit)
    assert resumed["resumed_from_step"] == step
    assert resumed["weights_sha256"] == reference["weights_sha256"]
    assert resumed["validation"] == reference["validation"]
    assert resumed["test"] == reference["test"]
    assert resumed["best_step"] == reference["best_step"]


def test_a_truncated_checkpoint_is_passed_over(swept: Swept, tiny: Tiny, tmp_path: Path) -> None:
    unit = Unit("none", 0)
    config = tiny.config(tmp_path, "variants=[none]")
    assert train_here(config, flag=StopAfter(17)) == 75
    first, last = list_checkpoints(Layout.of(config).unit(unit))
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert train_here(config, flag=StopFlag(None)) == 0
    resumed = record_of(tmp_path, unit)
    assert resumed["resumed_from_step"] == int(first.name.partition("-")[2])
    assert resumed["weights_sha256"] == record_of(swept.yaml.parent, unit)["weights_sha256"]


def test_a_unit_interrupted_after_its_last_step_is_only_finished(
    swept: Swept, tiny: Tiny, tmp_path: Path
) -> None:
    unit = Unit("none", 0)
    config = tiny.config(tmp_path, "variants=[none]", "training.keep_checkpoints=true")
    assert train_here(config, flag=StopFlag(None)) == 0
    folder = Layout.of(config).unit(unit)
    (folder / "unit.json").unlink()
    assert train_here(config, flag=StopFlag(None)) == 0
    again = record_of(tmp_path, unit)
    assert again["resumed_from_step"] == again["steps"] == again["planned_steps"]
    assert again["weights_sha256"] == record_of(swept.yaml.parent, unit)["weights_sha256"]
    assert again["test"] == record_of(swept.yaml.parent, unit)["test"]


def test_every_arm_starts_from_the_same_backbone(swept: Swept) -> None:
    units = swept.record["units"]
    assert len({unit["backbone"]["sha256"] for unit in units}) == 1
    assert len({unit["weights_sha256"] for unit in units}) == len(units)
    for unit in units:
        assert all(0 < point["loss"] < 2 for point in unit["curves"]["train"]), unit["variant"]


def test_the_variant_folder_is_the_bundle_of_the_best_seed(swept: Swept) -> None:
    for name, entry in swept.record["variants"].items():
        bundle = read_bundle(swept.layout.variant(name))
        units = [unit for unit in swept.record["units"] if unit["variant"] == name]
        best = max(units, key=lambda unit: unit["validation"]["macro_f1"])
        assert bundle.manifest.seed == best["seed"] == entry["best_seed"]
        assert bundle.manifest.temperature == pytest.approx(best["calibration"]["temperature"])


def test_checkpoints_are_gone_once_a_unit_is_bundled(swept: Swept) -> None:
    assert not list(swept.layout.results.glob("*/seed-*/checkpoint-*"))


def test_strata_are_described_where_there_are_strata(swept: Swept) -> None:
    strata = {unit["variant"]: unit["strata"] for unit in swept.record["units"]}
    assert strata["none"] is None
    assert sum(strata["routing"]["occupancy"]) == pytest.approx(1, abs=1e-4)


def test_logs_are_tensorboard_events_and_json_lines(swept: Swept) -> None:
    folder = swept.layout.logs / "none" / "seed-0"
    assert list(folder.glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"unit", "step", "of", "loss", "timestamp"} <= lines[0].keys()
    assert any("eval_per_domain/films/macro_f1" in line for line in lines)
