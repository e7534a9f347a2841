"""results.json: complete, valid by its schema, rebuilt from what lies on disk, and true."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from statistics import fmean, stdev

import jsonschema
import pytest

from tests.trainer_job.conftest import Swept
from tests.trainer_job.tiny import Tiny
from trainer_job import results
from trainer_job.errors import JobError
from trainer_job.launch import Devices
from trainer_job.metrics import confusion_matrix, macro_f1
from trainer_job.predictions import read_predictions
from trainer_job.selection import compare
from trainer_job.units import Layout, Unit, write_status

DEVICES = Devices("cpu", 1)


def test_the_schema_is_a_schema_and_every_object_is_described() -> None:
    schema = results.load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) == set(schema["properties"])
    names = ("config", "units", "variants", "baselines", "comparisons", "selected", "verdict")
    assert set(names) <= set(schema["required"])


def test_the_record_is_valid_and_has_the_names_that_others_read(swept: Swept) -> None:
    record = json.loads(swept.layout.record.read_text(encoding="utf-8"))
    results.validate(record)
    assert record["status"] == "complete"
    assert {"id", "started", "finished", "command", "host", "devices"} <= record["run"].keys()
    assert record["data"]["domains"]["shop"]["counts"]["train"]["neutral"] > 0
    assert record["baselines"]["majority"]["test"]["n"] == record["baselines"]["tfidf_logreg"]["test"]["n"]
    assert record["selected"].keys() >= {"variant", "seed", "path", "rule", "reason"}
    assert (swept.layout.results / record["selected"]["path"] / "manifest.json").is_file()


def test_every_unit_of_the_plan_is_there(swept: Swept) -> None:
    units = {(unit["variant"], unit["seed"]): unit for unit in swept.record["units"]}
    assert len(units) == 6
    for unit in units.values():
        assert (swept.layout.results / unit["path"] / "unit.json").is_file()
        assert unit["seconds"].keys() >= {"load", "train", "evaluate", "save", "predict", "bundle", "total"}


def test_means_and_deviations_are_over_seeds(swept: Swept) -> None:
    entry = swept.record["variants"]["moe"]
    scores = [unit["test"]["macro_f1"] for unit in swept.record["units"] if unit["variant"] == "moe"]
    assert entry["test"]["macro_f1"]["mean"] == pytest.approx(fmean(scores))
    assert entry["test"]["macro_f1"]["sd"] == pytest.approx(stdev(scores))
    assert entry["added_percent"] > 0
    assert swept.record["variants"]["none"]["added_percent"] == 0
    assert entry["flops_per_token"] > swept.record["variants"]["none"]["flops_per_token"]


def test_predictions_give_the_recorded_score_again(swept: Swept) -> None:
    for unit in swept.record["units"]:
        rows = read_predictions(swept.layout.results / unit["path"] / "predictions.parquet", "test")
        table = confusion_matrix(rows["label"], rows["prediction"], 3)
        assert macro_f1(table, range(3)) == pytest.approx(unit["test"]["macro_f1"])


def test_units_that_are_not_finished_stand_with_their_state(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "variants=[none, moe]")
    layout = Layout.of(config)
    write_status(layout.unit(Unit("moe", 0)), "failed", error={"kind": "TrainingFailed", "message": "boom"})
    record = results.write(
        layout, results.build(config, layout, status="partial", command=["x"], devices=DEVICES)
    )
    states = {unit["variant"]: unit["status"] for unit in record["units"]}
    assert states == {"none": "pending", "moe": "failed"}
    assert record["units"][1]["error"]["message"] == "boom"
    assert record["selected"] is None
    assert record["verdict"] == "Nothing is finished yet."


def test_the_id_survives_and_the_end_is_written_at_the_end(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    layout = Layout.of(config)
    first = results.build(config, layout, status="running", command=["x"], devices=DEVICES)["run"]
    second = results.build(config, layout, status="partial", command=["x"], devices=DEVICES)["run"]
    assert first["id"] == second["id"]
    assert first["finished"] is None
    assert second["finished"] is not None


def test_a_record_that_breaks_the_schema_is_not_written(swept: Swept, tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path)
    broken = copy.deepcopy(swept.record)
    broken["units"][0]["seed"] = "zero"
    with pytest.raises(JobError, match=r"units/0/seed"):
        results.write(layout, broken)
    assert not layout.record.exists()


def test_spread_of_nothing_and_of_one() -> None:
    assert results.spread([]) == {"mean": None, "sd": None}
    assert results.spread([0.5, None]) == {"mean": 0.5, "sd": None}


def test_a_sweep_is_settled_by_units_of_its_own_configuration_alone(swept: Swept, tiny: Tiny) -> None:
    def status(*settings: str) -> str:
        config = tiny.config(swept.yaml.parent, "variants=[none, routing, moe]", *settings)
        return results.settled_status(config, Layout.of(config), earlier=None)

    assert status("seeds=[0, 1]") == "complete"
    assert status("seeds=[0, 1]", "training.max_steps=3") == "partial"


def test_predictions_carry_their_seeds(swept: Swept) -> None:
    kept = [unit for unit in swept.record["units"] if (unit["variant"], unit["seed"]) != ("none", 0)]
    found = results.load_predictions(swept.layout, kept, "validation")
    assert found.seeds == {"none": [1], "routing": [0, 1], "moe": [0, 1]}
    comparisons = compare("validation", found, samples=50)
    assert {(entry["a"], entry["seeds"]) for entry in comparisons} == {("routing", 1), ("moe", 1)}
