"""What a training process says of itself, and when it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainer_job.meter import Meter
from trainer_job.standing import Standing

ARGS = cast(TrainingArguments, None)  # the callback does not look at them
CONTROL = TrainerControl()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def standing(tmp_path: Path, clock: Clock) -> Standing:
    return Standing(tmp_path, every=5.0, clock=clock)


def at(step: int, *, first: bool = True) -> TrainerState:
    state = TrainerState(max_steps=10, is_world_process_zero=first)
    state.global_step, state.epoch = step, step / 5
    return state


def written(standing: Standing) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(standing.path.read_text())
    return found


def test_the_clock_starts_with_training(standing: Standing) -> None:
    standing.on_train_begin(ARGS, at(0), CONTROL)
    found = written(standing)
    assert (found["step"], found["planned_steps"]) == (0, 10)
    assert found["last_step"] == found["last_checkpoint"] == 1000.0
    assert "last_evaluation" not in found


def test_steps_alone_are_written_now_and_then(standing: Standing, clock: Clock) -> None:
    standing.on_train_begin(ARGS, at(0), CONTROL)
    clock.now += 4
    standing.on_step_end(ARGS, at(1), CONTROL)
    assert written(standing)["step"] == 0
    clock.now += 1
    standing.on_step_end(ARGS, at(2), CONTROL)
    assert (written(standing)["step"], written(standing)["last_step"]) == (2, 1005.0)


def test_an_evaluation_is_alive_and_no_checkpoint(standing: Standing, clock: Clock) -> None:
    standing.on_train_begin(ARGS, at(0), CONTROL)
    clock.now += 60
    standing.on_prediction_step(ARGS, at(5), CONTROL)
    assert (written(standing)["last_step"], written(standing)["last_checkpoint"]) == (1060.0, 1000.0)


def test_losses_are_written_at_once_and_other_logs_are_not(standing: Standing) -> None:
    standing.on_log(ARGS, at(1), CONTROL, logs={"eval_loss": 1.0, "epoch": 0.1})
    assert not standing.path.exists()
    standing.on_log(
        ARGS, at(1), CONTROL, logs={"loss": 0.5, "learning_rate": 1e-5, "grad_norm": float("nan")}
    )
    found = written(standing)
    assert (found["loss"], found["learning_rate"], found["grad_norm"]) == (0.5, 1e-5, None)


def test_an_evaluation_leaves_its_figures(standing: Standing) -> None:
    metrics = {"eval_accuracy": 0.9, "eval_macro_f1": 0.8, "eval_per_domain/a/b/macro_f1": 0.7}
    standing.on_evaluate(ARGS, at(5), CONTROL, metrics=metrics)
    assert written(standing)["validation"] == {"accuracy": 0.9, "macro_f1": 0.8, "per_domain": {"a/b": 0.7}}
    assert written(standing)["last_evaluation"] == 1000.0


def test_a_checkpoint_is_dated(standing: Standing, clock: Clock) -> None:
    standing.on_train_begin(ARGS, at(0), CONTROL)
    clock.now += 30
    standing.on_save(ARGS, at(5), CONTROL)
    assert written(standing)["last_checkpoint"] == 1030.0


def test_only_the_first_process_writes(standing: Standing) -> None:
    standing.on_train_begin(ARGS, at(0, first=False), CONTROL)
    standing.on_save(ARGS, at(5, first=False), CONTROL)
    assert not standing.path.exists()


def test_the_meter_is_read(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    standing.meter = Meter()
    standing.meter.add(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    standing.on_save(ARGS, at(1), CONTROL)
    assert written(standing)["tokens"] == {"real": 3, "padding": 3}
    assert written(standing)["seconds"]["train"] == 0.0
    assert written(standing)["device_memory_bytes"] == 7
