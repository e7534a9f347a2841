"""A results folder of another configuration or a later version is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer_job.tiny import Tiny
from trainer_job.__main__ import main
from trainer_job.errors import ResultsMismatch
from trainer_job.folder import check_folder, refuse_newer
from trainer_job.units import Layout, config_hash


@pytest.mark.parametrize("version", [2, "1.5", None])
def test_a_record_of_a_later_version_is_left_alone(tiny: Tiny, tmp_path: Path, version: object) -> None:
    layout = Layout.of(tiny.config(tmp_path))
    layout.results.mkdir(parents=True)
    text = json.dumps({"schema_version": version, "status": "complete", "news": True})
    layout.record.write_text(text)
    with pytest.raises(ResultsMismatch, match="install the newer version, or set another `results`"):
        refuse_newer(layout)
    assert main(["run", "--config", str(tiny.yaml(tmp_path))]) == 2
    assert layout.record.read_text() == text


def test_a_record_of_this_version_or_none_is_no_obstacle(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    layout = Layout.of(config)
    check_folder(layout, config)
    layout.results.mkdir(parents=True)
    layout.record.write_text('{"schema_version": 1}')
    check_folder(layout, config)


def test_units_whose_notes_were_lost_are_known_by_the_record(tiny: Tiny, tmp_path: Path) -> None:
    """As after a copy of the results folder that left out what is hidden."""
    config = tiny.config(tmp_path)
    layout = Layout.of(config)
    (layout.results / "none" / "seed-0").mkdir(parents=True)
    (layout.results / "none" / "seed-0" / "status.json").write_text("{}")
    trained = config.model_dump(mode="json")
    trained["training"]["epochs"] += 1
    record = {"schema_version": 1, "config_hash": "another", "config": trained}
    layout.record.write_text(json.dumps(record))
    with pytest.raises(ResultsMismatch, match=r"different: training\.epochs"):
        check_folder(layout, config)
    layout.record.write_text(json.dumps(record | {"config_hash": config_hash(config)}))
    check_folder(layout, config)
