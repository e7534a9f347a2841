"""Only checkpoints that are whole, and of this work, are gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer_job.checkpoints import (
    drop_all,
    find_resumable,
    flaw,
    is_last,
    list_checkpoints,
    mark_complete,
    rotate,
)

GOOD = {"world_size": 1, "identity": "me"}


def write(unit: Path, step: int, *, mark: bool = True, best: int | None = None, last: bool = False) -> Path:
    folder = unit / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"w" * 100)
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    if mark:
        mark_complete(folder, step=step, world_size=1, identity="me", last=last)
    return folder


def found(unit: Path) -> tuple[str | None, dict[str, str]]:
    warnings: dict[str, str] = {}
    folder = find_resumable(
        unit, world_size=1, identity="me", warn=lambda name, reason: warnings.update({name: reason})
    )
    return (folder.name if folder else None), warnings


def test_the_latest_complete_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    assert found(tmp_path) == ("checkpoint-100", {})


def test_checkpoints_are_in_order_of_step_and_other_folders_are_ignored(tmp_path: Path) -> None:
    for step in (100, 9):
        write(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "bundle").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-100"]


def test_an_unfinished_checkpoint_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, mark=False)
    name, warnings = found(tmp_path)
    assert name == "checkpoint-1"
    assert "no .complete marker" in warnings["checkpoint-2"]


@pytest.mark.parametrize("size", [0, 99, None])
def test_a_truncated_or_missing_file_is_seen(tmp_path: Path, size: int | None) -> None:
    folder = write(tmp_path, 1)
    weights = folder / "model.safetensors"
    if size is None:
        weights.unlink()
    else:
        weights.write_bytes(b"w" * size)
    name, warnings = found(tmp_path)
    assert name is None
    assert "bytes instead of 100" in warnings["checkpoint-1"]


def test_another_world_size_or_identity_is_not_gone_on_from(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    assert flaw(folder, world_size=1, identity="me") is None
    assert "1 process(es), this run has 2" in str(flaw(folder, world_size=2, identity="me"))
    assert "other data" in str(flaw(folder, world_size=1, identity="you"))


def test_a_checkpoint_needs_the_best_one_that_it_remembers(tmp_path: Path) -> None:
    best = write(tmp_path, 1, best=1)
    write(tmp_path, 2, best=1)
    assert found(tmp_path)[0] == "checkpoint-2"
    (best / "model.safetensors").write_bytes(b"")
    name, warnings = found(tmp_path)
    assert name is None
    assert "its best checkpoint-1 is unusable" in warnings["checkpoint-2"]


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    write(tmp_path, 5, mark=False)
    rotate(tmp_path, keep=2, best_step=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        f"checkpoint-{step}" for step in (1, 3, 4, 5)
    ]


def test_the_last_checkpoint_says_so(tmp_path: Path) -> None:
    assert is_last(write(tmp_path, 2, last=True))
    assert not is_last(write(tmp_path, 1))


def test_drop_all_leaves_the_rest_of_the_unit(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "unit.json").write_text("{}")
    drop_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unit.json"]
