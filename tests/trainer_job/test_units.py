"""Identities change exactly when the work changes; states are read from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer_job.conftest import Swept
from tests.trainer_job.tiny import Tiny
from trainer_job.files import read_json
from trainer_job.units import (
    Unit,
    config_hash,
    differing_keys,
    finished_records,
    identity,
    is_complete,
    planned_units,
    read_status,
    write_status,
)


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("training.learning_rate=1.0e-5", True),
        ("model.strata=5", True),
        ("data.seed=1", True),
        ("hardware.precision=bf16", True),
        ("seeds=[0, 1]", False),
        ("variants=[none]", False),
        ("training.log_every=1", False),
        ("training.micro_batch_size=4", False),
        ("hardware.processes=2", False),
        ("cache=elsewhere", False),
    ],
)
def test_the_hash_sees_what_decides_the_weights_and_nothing_else(
    tiny: Tiny, tmp_path: Path, setting: str, changes: bool
) -> None:
    before, after = tiny.config(tmp_path), tiny.config(tmp_path, setting)
    assert (config_hash(before) != config_hash(after)) == changes
    assert bool(differing_keys(before.model_dump(mode="json"), after)) == changes


def test_differing_keys_are_dotted_names(tiny: Tiny, tmp_path: Path) -> None:
    before = tiny.config(tmp_path).model_dump(mode="json")
    after = tiny.config(tmp_path, "training.epochs=5", "data.domains.films.text=body")
    assert differing_keys(before, after) == ["data.domains.films.text", "training.epochs"]


def test_units_come_seed_by_seed(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "variants=[none, moe]", "seeds=[3, 1]")
    assert [unit.name for unit in planned_units(config)] == ["none:3", "moe:3", "none:1", "moe:1"]


def test_an_identity_depends_on_all_four_parts() -> None:
    base = identity(Unit("none", 0), fingerprint="f", config_digest="c")
    others = {
        identity(Unit("moe", 0), fingerprint="f", config_digest="c"),
        identity(Unit("none", 1), fingerprint="f", config_digest="c"),
        identity(Unit("none", 0), fingerprint="g", config_digest="c"),
        identity(Unit("none", 0), fingerprint="f", config_digest="d"),
    }
    assert len({base, *others}) == 5


def test_a_unit_is_complete_only_with_status_record_and_manifest(swept: Swept, tmp_path: Path) -> None:
    folder = swept.layout.unit(Unit("none", 0))
    record = read_json(folder / "unit.json") or {}
    assert is_complete(folder)
    assert is_complete(folder, record["identity"])
    assert not is_complete(folder, "another")
    copy = tmp_path / "seed-0"
    for missing in ("status.json", "unit.json", "bundle/manifest.json"):
        for name in {"status.json", "unit.json", "bundle/manifest.json"} - {missing}:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((folder / name).read_bytes())
        (copy / missing).unlink(missing_ok=True)
        assert not is_complete(copy), missing


def test_records_of_another_configuration_are_left_out(swept: Swept) -> None:
    assert len(finished_records(swept.layout, config_digest=config_hash(swept.config))) == 6
    assert finished_records(swept.layout, config_digest="another") == []


def test_a_status_is_pending_until_written(tmp_path: Path) -> None:
    assert read_status(tmp_path) == {"state": "pending"}
    write_status(tmp_path, "running", step=3)
    assert read_status(tmp_path)["step"] == 3
