"""What happens around each training step: stopping together, checkpoints' markers, expert balance, averages.

Together with `training` and `progress` these are the only files that know `transformers.Trainer`. They do not
know data, metrics' meaning or the sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_job.averaging import WeightAverage
from trainer_job.batches import GlobalBatches
from trainer_job.checkpoints import mark_complete, rotate
from trainer_job.errors import TrainingFailed
from trainer_job.heartbeat import Heartbeat
from trainer_job.ranks import StopFlag, barrier, sum_over_ranks, world_size


class StopTogether(TrainerCallback):
    """After each step, all ranks agree whether to stop, and whether any loss was not finite.

    `watch` is a tensor that the trainer raises to 1 when a loss is not finite. On GPUs the ranks agree every
    `every` steps only, because reading the answer waits for the device. An evaluation that is due at the stop
    is still made, so that the resumed run has seen the same ones.
    """

    def __init__(self, flag: StopFlag, watch: torch.Tensor, *, every: int = 1) -> None:
        self.flag, self.watch, self.every = flag, watch, every
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Agree, then stop or fail on every rank at the same step."""
        last = state.global_step >= state.max_steps
        if state.global_step % self.every and not last:
            return
        votes = torch.zeros(2, device=self.watch.device)
        votes[0] = float(self.flag.raised())
        votes[1] = self.watch
        if world_size() > 1:
            dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        stop, broken = votes.tolist()
        if broken:
            raise TrainingFailed(
                f"the loss was not finite at step {state.global_step}; finite losses train: lower "
                f"training.learning_rate or set hardware.precision=fp32"
            )
        if stop and not last:
            self.stopped = True
            control.should_save = control.should_training_stop = True


class InEpoch(TrainerCallback):
    """Tells the order of rows which epoch it is.

    The Trainer tells the sampler that it finds, and with several ranks finds none when it goes on inside an
    epoch (accelerate then wraps batches once more): the rest of that epoch would be trained in the order of
    the first one, without a word.
    """

    def __init__(self, batches: GlobalBatches) -> None:
        self.batches = batches

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the epoch's first row is drawn."""
        self.batches.set_epoch(state.global_step // self.batches.steps)


class Schedule(TrainerCallback):
    """Evaluates and saves at the planned steps."""

    def __init__(self, steps: frozenset[int]) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for an evaluation and a checkpoint when one is planned here."""
        if state.global_step in self.steps:
            control.should_evaluate = control.should_save = True


class EarlyStop(TrainerCallback):
    """Stops when the last `patience` evaluations brought no new best, by the history in the saved state."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the evaluations since the best one."""
        seen = {
            entry["step"]: entry["eval_macro_f1"] for entry in state.log_history if "eval_macro_f1" in entry
        }
        best = max(seen, key=lambda step: (seen[step], -step))
        if sum(step > best for step in seen) >= self.patience:
            control.should_training_stop = True
            control.should_save = True


class MarkComplete(TrainerCallback):
    """After every rank has saved: the marker, then the deletion of older checkpoints."""

    def __init__(self, folder: Path, *, identity: str, keep: int, stop: StopTogether) -> None:
        self.folder, self.identity, self.keep, self.stop = folder, identity, keep, stop

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark on rank 0, with barriers around it: nobody trains on while the marker is missing."""
        barrier()
        if state.is_world_process_zero:
            mark_complete(
                self.folder / f"checkpoint-{state.global_step}",
                step=state.global_step,
                world_size=world_size(),
                identity=self.identity,
                last=control.should_training_stop and not self.stop.stopped,
            )
            rotate(self.folder, keep=self.keep, best_step=state.best_global_step)
        barrier()


class BalanceExperts(TrainerCallback):
    """Moves the experts' selection bias after an optimizer step, by the loads of all ranks (moe; no-op
    elsewhere).
    """

    def __init__(self, balance: Callable[[Callable[[torch.Tensor], torch.Tensor] | None], None]) -> None:
        self.balance = balance

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One update for each optimizer step."""
        self.balance(sum_over_ranks if world_size() > 1 else None)


class Averaging(TrainerCallback):
    """Takes the weights after each optimizer step into their moving average."""

    def __init__(self, average: WeightAverage) -> None:
        self.average = average

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before any evaluation that is due at this step."""
        self.average.update()


class Beating(TrainerCallback):
    """Tells the heartbeat of this process about each step and each batch of an evaluation."""

    def __init__(self, heart: Heartbeat) -> None:
        self.heart = heart

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step is done."""
        self.heart.beat("training", step=state.global_step)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A long evaluation is alive, too."""
        self.heart.beat("evaluation", step=state.global_step)
