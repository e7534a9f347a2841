"""A worker that meets a fault: `python -m tests.trainer_job.faults --config-file F`, told by FAULT.

FAULT, a variable, is JSON: `kind`, the `step` from which it strikes, `at` what (training, evaluation, saving,
bundling), the `rank` and the `unit` that it strikes, and a file `once`, there when it has struck already.
Everything else is the real worker.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_job.launch import Devices, worker_command
from trainer_job.units import Unit
from trainer_job.worker import leave, main


class Fault(TrainerCallback):
    """Strikes at one step of training, in an evaluation, in saving, or while bundling."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.batches = 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.order.get("at", "training") == "training" and state.global_step + 1 >= self.order["step"]:
            self.strike(kwargs.get("model"))

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.order.get("at") == "evaluation" and state.global_step >= self.order["step"]:
            self.strike(None)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.order.get("at") == "saving" and state.global_step >= self.order["step"]:
            self.strike(None)

    def strike(self, model: Any) -> None:
        order = self.order
        if int(os.environ.get("RANK", "0")) != order.get("rank", 0):
            return
        if "once" in order:
            mark = Path(order["once"])
            if mark.exists():
                return
            mark.touch()
        if order["kind"] in SIGNALS:
            os.kill(os.getpid(), SIGNALS[order["kind"]])
        else:
            ACTS[order["kind"]](model)


def run_out_of_memory(model: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def spoil(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def fill_the_disk(model: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hang(model: Any) -> None:
    time.sleep(600)


def kill_torchrun(model: Any) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def stop_the_clock(model: Any) -> None:
    past = time.time() - 86_400
    time.time = lambda: past


SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGSTOP": signal.SIGSTOP}
ACTS: dict[str, Callable[[Any], None]] = {
    "memory": run_out_of_memory,
    "nan": spoil,
    "full": fill_the_disk,
    "hang": hang,
    "kill torchrun": kill_torchrun,
    "clock": stop_the_clock,
}


def extras(unit: Unit) -> tuple[TrainerCallback, ...]:
    """The fault, for the unit that it is meant for."""
    order = json.loads(os.environ["FAULT"])
    return (Fault(order),) if order.get("unit", unit.name) == unit.name else ()


def bundle_fault() -> None:
    """Strike between a unit's predictions and its bundle."""
    order = json.loads(os.environ["FAULT"])
    if order.get("at") == "bundling":
        from trainer_job import unit_record

        original = unit_record.write_unit_bundle

        def struck(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            Fault(order).strike(None)

        unit_record.write_unit_bundle = struck


def faulty_command(devices: Devices, order: Path) -> list[str]:
    """As `launch.worker_command`, for this worker."""
    return worker_command(devices, order, module="tests.trainer_job.faults")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    bundle_fault()
    leave(main(extras=extras))
