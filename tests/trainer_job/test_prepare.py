"""What units share: the same calibration rows, the same backbone, baselines once a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from tests.trainer_job.tiny import SIZES, Tiny
from trainer_job.errors import WeightsError
from trainer_job.prepare import (
    Prepared,
    baselines,
    calibration_batches,
    check_backbone,
    load_model,
    prepare,
)
from trainer_job.units import Layout


@pytest.fixture
def prepared(tiny: Tiny, tmp_path: Path) -> tuple[Prepared, Layout]:
    config = tiny.config(tmp_path)
    layout = Layout.of(config)
    layout.state.mkdir(parents=True)
    return prepare(config, layout, signature="s", rank=0), layout


def test_what_was_read_is_recorded(prepared: tuple[Prepared, Layout]) -> None:
    found, layout = prepared
    data = json.loads((layout.state / "data.json").read_text())
    assert data["fingerprint"] == found.corpus.fingerprint
    assert data["rows"] == {split: 2 * size for split, size in SIZES.items()}
    assert data["domains"]["films"]["counts"]["train"] == {"negative": 48, "positive": 48}
    assert data["tokens"]["train"] == sum(found.tables["train"]["length"])


def test_calibration_takes_rows_of_every_domain_and_no_labels(prepared: tuple[Prepared, Layout]) -> None:
    found, _ = prepared
    batches = calibration_batches(found, rows_per_domain=20)
    assert sum(len(batch["input_ids"]) for batch in batches) == 40
    assert all(batch.keys() == {"input_ids", "attention_mask"} for batch in batches)
    again = calibration_batches(found, rows_per_domain=20)
    assert all((one["input_ids"] == two["input_ids"]).all() for one, two in zip(batches, again, strict=True))


def test_baselines_are_computed_once_a_data_set(
    prepared: tuple[Prepared, Layout], tiny: Tiny, tmp_path: Path
) -> None:
    found, layout = prepared
    path = layout.state / "baselines.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "mark": True}))
    assert baselines(tiny.config(tmp_path), layout, found.corpus)["mark"] is True
    path.write_text(json.dumps({**kept, "mark": True, "fingerprint": "another"}))
    assert "mark" not in baselines(tiny.config(tmp_path), layout, found.corpus)


def test_pairs_that_cannot_be_numbered_are_refused_before_training(
    prepared: tuple[Prepared, Layout], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = prepared
    config = tiny.config(tmp_path / "pairs", "model.domain_pairs=64")
    load_model(config, found.corpus, variant="none", seed=0)
    monkeypatch.setattr("stratified_models.domain_words.FACTOR", 2**31)
    with pytest.raises(WeightsError, match=r"domain_pairs 64: .* set it to 0"):
        load_model(config, found.corpus, variant="none", seed=0)


def test_the_backbone_is_recorded_then_compared(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path)
    check_backbone(layout, "a" * 64)
    check_backbone(layout, "a" * 64)
    with pytest.raises(WeightsError, match="bbbbbbbbbbbb… differs from aaaaaaaaaaaa…"):
        check_backbone(layout, "b" * 64)


def test_what_the_data_warn_of_is_logged(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    asked = config.data.model_copy(update={"train_samples": 100_000})
    layout = Layout.of(config)
    layout.state.mkdir(parents=True)
    with structlog.testing.capture_logs() as logs:
        prepare(config.model_copy(update={"data": asked}), layout, signature="s", rank=0)
    warned = [entry for entry in logs if entry["log_level"] == "warning" and entry["event"] == "data"]
    assert {entry["domain"] for entry in warned} == set(config.data.domains)
