"""Figures computed again from predictions are those of the record, or it is said where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.conftest import Swept
from tests.trainer_job.test_main import VARIANTS, copied
from trainer_job.__main__ import main
from trainer_job.recompute import differences, recomputed, summary_differences

__all__ = ["copied"]  # the fixture


def test_a_sweep_as_it_was_recorded_is_computed_again_to_the_digit(swept: Swept) -> None:
    assert recomputed(swept.layout, swept.config).differences == []


def test_a_figure_that_was_changed_is_found_and_ends_in_1(
    copied: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, folder = copied
    command = ["report", "--config", str(config), *VARIANTS, "--recompute"]
    assert main(command) == 0
    assert "0 figures differ" in capsys.readouterr().out
    path = folder / "moe" / "seed-1" / "unit.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["test"]["per_domain"]["shop"]["accuracy"] += 0.01
    path.write_text(json.dumps(record), encoding="utf-8")
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "differs: moe:1: test/per_domain/shop/accuracy: recorded" in said
    assert "1 figures differ" in said


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("variants", lambda part: part["moe"]["test"]["macro_f1"].update(mean=0.9), "moe/test/macro_f1/mean"),
        ("baselines", lambda part: part["majority"]["test"].update(accuracy=0.9), "majority/test/accuracy"),
        (
            "comparisons",
            lambda part: part[0].update(p_corrected=1e-4),
            "moe - none on validation/p_corrected",
        ),
        ("selected", lambda part: part.update(seed=part["seed"] + 1), "selected/seed: recorded"),
        ("units", lambda part: part.pop(), "recorded ['moe:0'"),
    ],
)
def test_a_figure_of_the_sweeps_own_record_that_was_changed_is_found(
    copied: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    section: str,
    change: Callable[[Any], None],
    said: str,
) -> None:
    config, folder = copied
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    record["comparisons"].sort(key=lambda entry: (entry["a"], entry["split"] == "test"))
    change(record[section])
    (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")
    command = ["report", "--config", str(config), *VARIANTS, "--recompute"]
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert f"differs: {section}" in shown
    assert said in shown
    assert "1 figures differ" in shown
    assert main(command) == 0  # the record was made anew


def test_a_running_sweeps_record_may_be_a_unit_behind(swept: Swept) -> None:
    earlier = {**swept.record, "units": swept.record["units"][:-1]}
    assert summary_differences({**earlier, "status": "running"}, swept.record) == []
    assert len(summary_differences(earlier, swept.record)) == 1
    assert summary_differences({}, swept.record) == []


def test_what_predictions_do_not_tell_and_an_older_record_lacks_is_no_difference(
    copied: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, folder = copied
    path = folder / "none" / "seed-0" / "unit.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["calibration"]["out_of_domain"]["left_out"] = {"energy": 0.6, "mahalanobis": 0.5, "nearest": 0.5}
    del record["test"]["domain_inference"]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert main(["report", "--config", str(config), *VARIANTS, "--recompute"]) == 0
    assert "0 figures differ" in capsys.readouterr().out
    record["validation"]["domain_inference"]["confusion"][0][0] += 1
    path.write_text(json.dumps(record), encoding="utf-8")
    assert main(["report", "--config", str(config), *VARIANTS, "--recompute"]) == 1
    said = capsys.readouterr().out
    assert "differs: none:0: validation/domain_inference/confusion/0/0: recorded" in said
    assert "1 figures differ" in said


def test_only_figures_of_later_versions_may_be_missing() -> None:
    assert list(differences({"a": 1, "b": {}}, {"a": 1, "b": {"left_out": None}})) == []
    assert list(differences({"a": 1}, {"a": 1, "ece": 0.5})) == ["ece: recorded None, recomputed 0.5"]


def test_missing_predictions_are_an_error_with_its_cure(
    copied: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, folder = copied
    (folder / "none" / "seed-0" / "predictions.parquet").unlink()
    assert main(["report", "--config", str(config), *VARIANTS, "--recompute"]) == 3
    assert "restore it, or train again" in capsys.readouterr().err
