"""Around the steps: stopping together, the NaN guard, early stopping, markers, logs and the heartbeat."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainer_job.callbacks import BalanceExperts, EarlyStop, MarkComplete, Progress, Schedule, StopTogether
from trainer_job.checkpoints import MARKER, is_last
from trainer_job.errors import TrainingFailed
from trainer_job.ranks import StopFlag, barrier, mean_over_ranks, sum_over_ranks, world_size

ARGS = cast(TrainingArguments, None)  # no callback of ours looks at them


def at(step: int, of: int = 10, **more: Any) -> TrainerState:
    state = TrainerState(max_steps=of, **more)
    state.global_step = step
    return state


class Raised(StopFlag):
    def __init__(self) -> None:
        super().__init__(None)

    def raised(self) -> bool:
        return True


def test_a_raised_flag_saves_and_stops() -> None:
    stop, control = StopTogether(Raised(), torch.zeros(())), TrainerControl()
    stop.on_step_end(ARGS, at(3), control)
    assert stop.stopped
    assert control.should_save
    assert control.should_training_stop


def test_the_last_step_is_no_stop() -> None:
    stop, control = StopTogether(Raised(), torch.zeros(())), TrainerControl()
    stop.on_step_end(ARGS, at(10), control)
    assert not stop.stopped


def test_ranks_agree_at_intervals() -> None:
    stop = StopTogether(Raised(), torch.zeros(()), every=5)
    stop.on_step_end(ARGS, at(4), TrainerControl())
    assert not stop.stopped
    stop.on_step_end(ARGS, at(5), TrainerControl())
    assert stop.stopped


def test_a_loss_that_is_not_finite_fails_the_unit() -> None:
    stop = StopTogether(StopFlag(None), torch.ones(()))
    with pytest.raises(TrainingFailed, match="not finite at step 4"):
        stop.on_step_end(ARGS, at(4), TrainerControl())


def test_a_flag_is_raised_when_the_supervisor_is_gone() -> None:
    assert not StopFlag(None).raised()
    assert not StopFlag(os.getpid()).raised()
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    assert StopFlag(gone).raised()


def test_evaluations_come_at_the_planned_steps() -> None:
    schedule = Schedule(frozenset({3}))
    for step, due in ((2, False), (3, True)):
        control = TrainerControl()
        schedule.on_step_end(ARGS, at(step), control)
        assert control.should_evaluate == control.should_save == due


def test_early_stopping_counts_from_the_history() -> None:
    history = [{"step": step, "eval_macro_f1": value} for step, value in ((1, 0.5), (2, 0.6), (3, 0.6))]
    for entries, stops in ((history, False), ([*history, {"step": 4, "eval_macro_f1": 0.4}], True)):
        control = TrainerControl()
        EarlyStop(2).on_evaluate(ARGS, at(4, log_history=entries), control)
        assert control.should_training_stop == stops


@pytest.mark.parametrize(
    ("ends", "stopped", "last"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_marker_is_written_after_saving(tmp_path: Path, ends: bool, stopped: bool, last: bool) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x")
    stop = StopTogether(StopFlag(None), torch.zeros(()))
    stop.stopped = stopped
    mark = MarkComplete(tmp_path, identity="me", keep=1, stop=stop)
    mark.on_save(ARGS, at(3), TrainerControl(should_training_stop=ends))
    assert (folder / MARKER).is_file()
    assert is_last(folder) == last


def test_experts_are_balanced_once_a_step() -> None:
    seen: list[Any] = []
    BalanceExperts(seen.append).on_optimizer_step(ARGS, at(1), TrainerControl())
    assert seen == [None]  # nothing to sum over on one rank


def test_one_rank_needs_no_sums() -> None:
    value = torch.tensor([1.0, 2.0])
    assert world_size() == 1
    barrier()
    assert torch.equal(sum_over_ranks(value), value)
    assert torch.equal(mean_over_ranks(value), value)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_writes_lines_events_and_a_heartbeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beat = tmp_path / "heartbeat"
    progress = Progress(name="none:0", logs=tmp_path / "logs", heartbeat=beat)
    state, control = at(3), TrainerControl()
    progress.on_train_begin(ARGS, state, control)
    progress.on_step_end(ARGS, state, control)
    progress.on_prediction_step(ARGS, state, control)
    progress.on_log(ARGS, state, control, logs={"loss": 1.5, "note": "text"})
    progress.on_log(ARGS, state, control, logs={})
    progress.on_train_end(ARGS, state, control)
    assert beat.exists()
    lines = (tmp_path / "logs" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["loss"] == 1.5
    said = capsys.readouterr()
    assert "progress" in said.out + said.err


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(name="moe:1", logs=tmp_path, heartbeat=tmp_path / "beat")
    state, control = at(1), TrainerControl()
    progress.on_train_begin(ARGS, state, control)
    progress.on_step_end(ARGS, state, control)
    progress.on_log(ARGS, state, control, logs={"loss": 0.5})
    progress.on_train_end(ARGS, state, control)
    assert "moe:1" in terminal.getvalue()
    assert "loss 0.500" in terminal.getvalue()


def test_other_ranks_are_silent(tmp_path: Path) -> None:
    progress = Progress(name="none:0", logs=tmp_path / "logs", heartbeat=tmp_path / "beat")
    state = at(1, is_world_process_zero=False)
    progress.on_train_begin(ARGS, state, TrainerControl())
    progress.on_log(ARGS, state, TrainerControl(), logs={"loss": 1.0})
    progress.on_train_end(ARGS, state, TrainerControl())
    assert not (tmp_path / "logs").exists()
