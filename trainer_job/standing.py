"""Where a unit's training stands, as the process that trains writes it into the unit's `standing.json`.

The supervisor reads it for /metrics. This file knows the Trainer's callbacks; it knows neither Prometheus nor
who reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_job.files import write_json
from trainer_job.meter import Meter
from trainer_job.telemetry import STANDING

EVERY = 5.0  # seconds between two files for steps alone; Prometheus asks less often
DOMAIN = "eval_per_domain/"
LOGGED = frozenset({"loss", "learning_rate", "grad_norm"})


class Standing(TrainerCallback):
    """Times (Unix seconds) of the last step, checkpoint and evaluation, and the last figures, on rank 0.

    A batch of an evaluation counts as a step: it is a sign of life. Losses, evaluations and checkpoints are
    written at once, steps alone at most every `every` seconds. `last_checkpoint` starts at the beginning of
    this process's training, so that its age says how much a crash would cost.
    """

    def __init__(self, folder: Path, *, every: float = EVERY, clock: Callable[[], float] = time.time) -> None:
        self.path, self.every, self.clock = folder / STANDING, every, clock
        self.meter = Meter()
        self.written = 0.0
        self.seen: dict[str, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The clock of this process's training starts."""
        now = self.clock()
        self.seen |= {"last_step": now, "last_checkpoint": now}
        self._write(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step."""
        self._step(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch of an evaluation."""
        self._step(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Loss, learning rate and gradient norm."""
        found = {name: value for name, value in (logs or {}).items() if name in LOGGED}
        if found:
            self.seen |= found
            self._write(state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Figures of an evaluation, pooled and by domain."""
        found = metrics or {}
        pooled = {name: found.get(f"eval_{name}") for name in ("accuracy", "macro_f1")}
        per_domain = {
            name.removeprefix(DOMAIN).rpartition("/")[0]: value
            for name, value in found.items()
            if name.startswith(DOMAIN)
        }
        self.seen |= {"validation": {**pooled, "per_domain": per_domain}, "last_evaluation": self.clock()}
        self._write(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint, complete on all ranks."""
        self.seen["last_checkpoint"] = self.clock()
        self._write(state)

    def _step(self, state: TrainerState) -> None:
        self.seen["last_step"] = self.clock()
        if self.seen["last_step"] - self.written >= self.every:
            self._write(state)

    def _write(self, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        self.written = self.clock()
        place = {"step": state.global_step, "planned_steps": state.max_steps, "epoch": state.epoch or 0.0}
        write_json(self.path, {**place, **self.seen, **self._cost()})

    def _cost(self) -> dict[str, Any]:
        """What this process has spent since it began."""
        real, padded, _ = self.meter.counts
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        return {
            "tokens": {"real": real, "padding": padded - real},
            "seconds": dict(self.meter.seconds),
            "device_memory_bytes": memory,
        }
