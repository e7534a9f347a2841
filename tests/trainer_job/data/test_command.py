"""`stratified-train data` shows the data of a configuration, and ends in 3 where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.trainer_job.data.corpora import rows
from trainer_job.__main__ import main
from trainer_job.config import DataConfig

Make = Callable[..., DataConfig]


def write(config: DataConfig, folder: Path) -> str:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"data": config.model_dump(mode="json")}), encoding="utf-8")
    return str(path)


def test_it_prints_the_account(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(make({"films": {"train": rows(40, prefix="films")}}), tmp_path)
    assert main(["data", "--config", config, "--set", f"cache={tmp_path / 'cache'}", "--samples", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Rows by domain, split and label" in printed
    assert printed.count("films positive: films row number") == 1


def test_wrong_data_end_in_three(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(make({"films": {"train": [("a", "neg"), ("b", "odd")]}}), tmp_path)
    assert main(["data", "--config", config, "--set", f"cache={tmp_path / 'cache'}"]) == 3
    assert "label 'odd' is not in label_map (neg, pos)" in capsys.readouterr().err


def test_fewer_than_no_sample_rows_are_refused(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(make({"films": {"train": rows(40, prefix="films")}}), tmp_path)
    assert main(["data", "--config", config, "--samples", "-1"]) == 2
    assert "--samples -1: fewer than none; give 0 or more" in capsys.readouterr().err
