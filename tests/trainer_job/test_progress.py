"""People's side of training: lines, a bar, events, and a row in TensorBoard's table of runs."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.trainer_job.conftest import Swept
from trainer_job.progress import Progress, write_hparams

ARGS = cast(TrainingArguments, None)  # no callback of ours looks at them


def at(step: int, of: int = 10, **more: Any) -> TrainerState:
    state = TrainerState(max_steps=of, **more)
    state.global_step = step
    return state


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_writes_lines_and_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(name="none:0", logs=tmp_path / "logs")
    state, control = at(3), TrainerControl()
    progress.on_train_begin(ARGS, state, control)
    progress.on_step_end(ARGS, state, control)
    progress.on_log(ARGS, state, control, logs={"loss": 1.5, "note": "text"})
    progress.on_log(ARGS, state, control, logs={})
    progress.on_train_end(ARGS, state, control)
    lines = (tmp_path / "logs" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["loss"] == 1.5
    said = capsys.readouterr()
    assert "progress" in said.out + said.err


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(name="moe:1", logs=tmp_path)
    state, control = at(1), TrainerControl()
    progress.on_train_begin(ARGS, state, control)
    progress.on_step_end(ARGS, state, control)
    progress.on_log(ARGS, state, control, logs={"loss": 0.5})
    progress.on_train_end(ARGS, state, control)
    assert "moe:1" in terminal.getvalue()
    assert "loss 0.500" in terminal.getvalue()


def test_other_ranks_are_silent(tmp_path: Path) -> None:
    progress = Progress(name="none:0", logs=tmp_path / "logs")
    state = at(1, is_world_process_zero=False)
    progress.on_train_begin(ARGS, state, TrainerControl())
    progress.on_log(ARGS, state, TrainerControl(), logs={"loss": 1.0})
    progress.on_train_end(ARGS, state, TrainerControl())
    assert not (tmp_path / "logs").exists()


def test_curves_by_domain_are_in_the_event_files(swept: Swept) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    unit = next(unit for unit in swept.record["units"] if unit["variant"] == "moe")
    events = EventAccumulator(str(swept.layout.logs / unit["path"])).Reload()
    for domain in ("films", "shop"):
        points = events.Scalars(f"validation/per_domain/{domain}/macro_f1")
        expected = [
            (point["step"], pytest.approx(point[f"per_domain/{domain}/macro_f1"]))
            for point in unit["curves"]["validation"]
        ]
        assert len(expected) > 1
        assert [(point.step, point.value) for point in points] == expected


def test_settings_and_final_figures_are_in_tensorboards_table(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    settings = {"variant": "moe", "learning_rate": 0.1, "absent": None}
    write_hparams(tmp_path, settings=settings, figures={"test/macro_f1": 0.5})
    events = EventAccumulator(str(tmp_path)).Reload()
    started = HParamsPluginData.FromString(
        events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    )
    hparams = started.session_start_info.hparams
    assert hparams["variant"].string_value == "moe"
    assert hparams["learning_rate"].number_value == 0.1
    assert "absent" not in hparams
    assert events.Scalars("test/macro_f1")[0].value == pytest.approx(0.5)
