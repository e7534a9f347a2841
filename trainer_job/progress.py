"""What people see while a unit trains: a bar or log lines, JSON lines, TensorBoard curves and table of runs.

It knows the Trainer's callbacks and the logs' files; it does not know what the figures mean.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """People's side: a bar on a terminal, one structured line at each logged step elsewhere; JSON lines and
    TensorBoard events in the unit's log folder."""

    def __init__(self, *, name: str, logs: Path) -> None:
        self.name, self.logs = name, logs
        self.log = structlog.get_logger("training")
        self.bar: rich.progress.Progress | None = None
        self.task = rich.progress.TaskID(0)
        self.writer: Any = None

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
        """Advance the bar."""
        if self.bar is not None:
            self.bar.advance(self.task)

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


def write_hparams(logs: Path, *, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Put a finished unit into TensorBoard's table of runs: its settings and its final figures.

    Args:
        logs: the unit's log folder.
        settings: numbers, text and truth values; anything else is left out.
        figures: name → final value.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    shown = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
    with SummaryWriter(str(logs)) as writer:
        summaries: Any = hparams
        for summary in summaries(shown, dict(figures)):
            writer._get_file_writer().add_summary(summary)
        for name, value in figures.items():
            writer.add_scalar(name, value)
