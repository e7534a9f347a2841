"""The process that trains: `python -m trainer_job.worker --config-file F`, alone or as a rank under torchrun.

It works through the supervisor's list of units one after the other, which saves the imports, and writes down
why it ended: torchrun would turn every exit code into 1. It does not decide what is tried again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from trainer_job import logs
from trainer_job.config import RunConfig
from trainer_job.errors import JobError, Preempted
from trainer_job.failures import write_failure
from trainer_job.files import read_json
from trainer_job.heartbeat import Heartbeat
from trainer_job.shortages import fitted
from trainer_job.units import Layout, Unit

Extras = Callable[[Unit], tuple[Any, ...]]  # more of the Trainer's callbacks for a unit


def main(arguments: Sequence[str] | None = None, *, extras: Extras = lambda unit: ()) -> int:
    """Run the worker; returns its exit code, which torchrun hides but a single process shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", type=Path, required=True)
    order_file = parser.parse_args(arguments).config_file
    rank = int(os.environ.get("RANK", "0"))
    logs.configure(level="INFO" if rank == 0 else "ERROR")
    from trainer_job.ranks import StopFlag

    supervisor = os.environ.get("STRATIFIED_SUPERVISOR_PID")
    flag = StopFlag(int(supervisor) if supervisor else None)
    flag.listen()
    return work(read_json(order_file) or {}, state=order_file.parent, rank=rank, flag=flag, extras=extras)


def work(
    order: dict[str, Any], *, state: Path, rank: int, flag: Any, extras: Extras = lambda unit: ()
) -> int:
    """Prepare, then train each unit of the order; every failure is written to `state` before it ends the
    process.
    """
    current: list[Unit] = []
    heart = Heartbeat(state, rank)
    heart.start()
    try:
        config = RunConfig.model_validate(order["config"])
        heart.probed = Layout.of(config).state / "heartbeat"
        connect(order)
        train_all(config, order, rank=rank, flag=flag, current=current, heart=heart, extras=extras)
    except Preempted as stopped:
        structlog.get_logger("worker").warning("preempted", reason=str(stopped))
        return stopped.exit_code
    except Exception as error:  # whatever it is, the supervisor must learn of it
        unit = current[-1] if current else None
        write_failure(state, error, unit=unit, rank=rank, step=heart.step, phase=heart.phase)
        shown = {} if isinstance(error, JobError) else {"exc_info": error}
        structlog.get_logger("worker").error("failed", kind=type(error).__name__, error=str(error), **shown)
        return error.exit_code if isinstance(error, JobError) else 1
    finally:
        heart.stop()
    return 0


def connect(order: dict[str, Any]) -> None:
    """Join the other ranks, and on a CPU share the cores and sum in a fixed order.

    Several threads would add up the gradients of gathered rows (the experts') in the order in which they
    finish, and a resumed unit would not end in the same bits.
    """
    import torch

    if order["device"] == "cpu":
        if "OMP_NUM_THREADS" in os.environ:
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # set by a property
    if order["processes"] > 1:
        from accelerate import PartialState

        PartialState(cpu=order["device"] == "cpu")


def train_all(
    config: RunConfig,
    order: dict[str, Any],
    *,
    rank: int,
    flag: Any,
    current: list[Unit],
    heart: Heartbeat,
    extras: Extras,
) -> None:
    """One unit after the other; `current` ends with the one that is being trained."""
    from trainer_job.prepare import prepare
    from trainer_job.ranks import barrier
    from trainer_job.unit_run import UnitRun, run_unit

    layout = Layout.of(config)
    prepared = prepare(config, layout, signature=order["signature"], rank=rank)
    for variant, seed in order["units"]:
        unit = Unit(variant, int(seed))
        if flag.raised():
            raise Preempted(f"{unit.name}: not started")
        current.append(unit)
        run = UnitRun(
            unit=unit,
            config=fitted(config, unit, order.get("shortages", {})),
            layout=layout,
            prepared=prepared,
            device=order["device"],
            rank=rank,
            flag=flag,
            heart=heart,
            shortages=tuple(order.get("shortages", {}).get(unit.name, {}).get("events", ())),
            callbacks=extras(unit),
        )
        run_unit(run)
        barrier()
        current.clear()


def leave(code: int) -> None:
    """Close the process group and end, without waiting for threads of libraries."""
    import torch.distributed as dist

    with suppress(Exception):  # the other ranks may be gone; there is nothing left to lose
        if dist.is_initialized():
            dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
