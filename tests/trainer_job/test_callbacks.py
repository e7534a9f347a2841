"""Around the steps: stopping together, the NaN guard, early stopping, markers, averages, the heartbeat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainer_job.batches import GlobalBatches
from trainer_job.callbacks import (
    Averaging,
    BalanceExperts,
    Beating,
    EarlyStop,
    InEpoch,
    MarkComplete,
    Schedule,
    StopTogether,
)
from trainer_job.checkpoints import MARKER, is_last
from trainer_job.errors import TrainingFailed
from trainer_job.heartbeat import Heartbeat
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


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (2, 0), (3, 1), (7, 2)])
def test_rows_are_in_the_order_of_the_epoch_that_the_step_lies_in(step: int, epoch: int) -> None:
    batches = GlobalBatches([5] * 13, batch_size=4, seed=0)  # three steps an epoch
    batches.set_epoch(9)
    InEpoch(batches).on_epoch_begin(ARGS, at(step), TrainerControl())
    assert batches.epoch == epoch


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


def test_the_heart_beats_in_steps_and_in_evaluation(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, 0, probed=tmp_path / "heartbeat")
    beating = Beating(heart)
    beating.on_step_end(ARGS, at(3), TrainerControl())
    assert (heart.phase, heart.step) == ("training", 3)
    beating.on_prediction_step(ARGS, at(3), TrainerControl())
    assert heart.phase == "evaluation"
    assert (tmp_path / "heartbeat").exists()


def test_weights_are_averaged_after_each_step() -> None:
    class Counting:
        updates = 0

        def update(self) -> None:
            self.updates += 1

    counting = Counting()
    averaging = Averaging(cast(Any, counting))
    averaging.on_step_end(ARGS, at(1), TrainerControl())
    assert counting.updates == 1
