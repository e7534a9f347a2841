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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_job import logs
from trainer_job.config import RunConfig
from trainer_job.errors import JobError
from trainer_job.launch import Devices, choose_devices, worker_command
from trainer_job.loading import load_config
from trainer_job.process import StopRequest
from trainer_job.results import build, write
from trainer_job.sweep import Sweep
from trainer_job.units import Layout, Unit
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


def terminate_torchrun(model: Any) -> None:
    os.kill(os.getppid(), signal.SIGTERM)


def kill_supervisor(model: Any) -> None:
    os.kill(int(os.environ["STRATIFIED_SUPERVISOR_PID"]), signal.SIGKILL)


def terminate_supervisor(model: Any) -> None:
    os.kill(int(os.environ["STRATIFIED_SUPERVISOR_PID"]), signal.SIGTERM)


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
    "terminate torchrun": terminate_torchrun,
    "kill supervisor": kill_supervisor,
    "terminate supervisor": terminate_supervisor,
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

        original = vars(unit_record)["write_unit_bundle"]

        def struck(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            Fault(order).strike(None)

        vars(unit_record)["write_unit_bundle"] = struck


def faulty_command(devices: Devices, order: Path) -> list[str]:
    """As `launch.worker_command`, for this worker."""
    return worker_command(devices, order, module="tests.trainer_job.faults")


def faulty_sweep(config: RunConfig, fault: Mapping[str, Any]) -> Sweep:
    """A sweep whose workers meet the fault."""
    layout, devices = Layout.of(config), choose_devices(config, ())
    paths = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}

    def recorded(status: str) -> dict[str, Any]:
        made = build(config, layout, status=status, command=["run"], devices=devices, samples=50)
        return write(layout, made)

    return Sweep(
        config=config,
        layout=layout,
        devices=devices,
        environ={**paths, "OMP_NUM_THREADS": "1", "FAULT": json.dumps(fault)},
        record=recorded,
        stop=StopRequest(),
        command=faulty_command,
    )


def supervise(arguments: list[str]) -> int:
    """Be the supervisor of such a sweep, in a process of its own; the exit code is the job's."""
    name, *settings = arguments
    logs.configure()
    sweep = faulty_sweep(load_config(name, settings=settings), json.loads(os.environ["FAULT"]))
    try:
        with sweep.stop.listening():
            sweep.run()
    except JobError as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        sys.exit(supervise(sys.argv[2:]))
    bundle_fault()
    leave(main(extras=extras))
