"""What happens around each training step: stopping together, checkpoints' markers, expert balance, logs.

Together with `training.py` these are the only files that know `transformers.Trainer`. They do not know data,
metrics' meaning or the sweep.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import structlog
import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_job.checkpoints import mark_complete, rotate
from trainer_job.errors import TrainingFailed
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


class Progress(TrainerCallback):
    """People's side: a bar on a terminal, one structured line at each logged step elsewhere; JSON lines and
    TensorBoard events in the unit's log folder; a heartbeat file touched by steps and evaluation batches."""

    def __init__(self, *, name: str, logs: Path, heartbeat: Path) -> None:
        self.name, self.logs, self.heartbeat = name, logs, heartbeat
        self.log = structlog.get_logger("training")
        self.bar: rich.progress.Progress | None = None
        self.task = rich.progress.TaskID(0)
        self.writer: Any = None
        self.beaten = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar and the event file, on rank 0."""
        if not state.is_world_process_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.logs.mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(str(self.logs), purge_step=state.global_step or None)
        if sys.stderr.isatty():
            self._open_bar(state)

    def _open_bar(self, state: TrainerState) -> None:
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[loss]}"),
            console=rich.console.Console(file=sys.stderr),
        )
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=state.max_steps, completed=state.global_step, loss="")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Advance the bar and the heartbeat."""
        self._beat()
        if self.bar is not None:
            self.bar.advance(self.task)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A long evaluation is alive, too."""
        self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self.beaten > 5:  # the file's age matters in minutes
            self.beaten = now
            self.heartbeat.touch()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write what the Trainer logs."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        if self.writer is not None:
            for key, value in numbers.items():
                tag = key.replace("eval_", "validation/") if key.startswith("eval_") else f"train/{key}"
                self.writer.add_scalar(tag, value, state.global_step)
        shown = {key: round(value, 6) for key, value in numbers.items() if "per_domain" not in key}
        step = {"unit": self.name, "step": state.global_step, "of": state.max_steps}
        self.append({**step, **numbers})
        if self.bar is None:
            self.log.info("progress", **step, **shown)
        elif "loss" in logs:
            self.bar.update(self.task, loss=f"loss {logs['loss']:.3f}")

    def append(self, entry: dict[str, Any]) -> None:
        """Add one JSON line to the unit's log."""
        with (self.logs / "log.jsonl").open("a", encoding="utf-8") as stream:
            logger = structlog.wrap_logger(
                structlog.WriteLogger(stream),
                processors=[
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ],
            )
            logger.info("step", **entry)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close what was opened."""
        if self.bar is not None:
            self.bar.stop()
        if self.writer is not None:
            self.writer.close()
