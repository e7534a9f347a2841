"""One life of the processes that train a share of the units: order, start, watch, and why they ended.

Several lanes run beside each other, each with its own folder of notes and its own devices. A lane does not
judge: the sweep decides what a failure means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from trainer_job.config import RunConfig
from trainer_job.failures import STALLED, WORKER_LOST, Failure, clear_failures, read_failure
from trainer_job.files import write_json
from trainer_job.heartbeat import Watch, culprit, forget, main_first
from trainer_job.launch import Devices, worker_environment
from trainer_job.nodes import announce
from trainer_job.process import StopRequest, describe_exit, run_worker
from trainer_job.units import Layout, Unit, read_status

Command = Callable[[Devices, Path], list[str]]
STACK_LINES = 60  # of each rank, in the log


@dataclass
class Lane:
    """The processes that train `units` one after the other; `folder` holds its order, beats and failures."""

    number: int
    folder: Path
    units: Sequence[Unit]
    config: RunConfig
    layout: Layout
    devices: Devices
    stall: Failure | None = None

    def live(
        self,
        order: Mapping[str, Any],
        *,
        command: Command,
        environ: Mapping[str, str],
        lock: int | None,
        stop: StopRequest,
        abandoned: Callable[[], bool],
    ) -> tuple[int, Failure | None]:
        """Run until the processes end; returns the exit code and the failure, if there was one.

        `order` is what all lanes are told alike; `abandoned` says that nobody waits for this one any more.
        """
        clear_failures(self.folder)
        forget(self.folder)
        config_file = self.folder / "worker.json"
        mine = {**order, "units": [[unit.variant, unit.seed] for unit in self.units]}
        if self.devices.nodes.count > 1:
            announce(config_file, mine)
        else:
            write_json(config_file, mine)
        watch = Watch(self.folder, self.config.hardware.stall_seconds)
        code = run_worker(
            command(self.devices, config_file),
            environment=worker_environment(self.devices, self.config, environ, lane=self.number),
            lock=lock,
            stop=stop,
            grace_seconds=max(1.0, self.config.hardware.grace_seconds - 5),
            on_tick=lambda: abandoned() or self._stalled(watch),
        )
        return code, self._failure(code)

    def running(self) -> list[Unit]:
        """Units of this lane that say that they are being trained."""
        return [unit for unit in self.units if read_status(self.layout.unit(unit))["state"] == "running"]

    def _failure(self, code: int) -> Failure | None:
        found = self.stall or read_failure(self.folder)
        saved = any(read_status(self.layout.unit(unit))["state"] == "preempted" for unit in self.units)
        if found is not None or code == 0 or saved:
            return found
        running = self.running()
        message = f"the worker ended with {describe_exit(code)}"
        return Failure(running[0] if running else None, WORKER_LOST, message, 1)

    def _stalled(self, watch: Watch) -> bool:
        """Whether a rank makes no progress; then its stack is logged and kept."""
        still = watch.stalled() if self.stall is None else []
        if not still:
            return self.stall is not None
        stacks = watch.examine()
        rank = culprit(stacks, still) if stacks else still[0]
        log = structlog.get_logger("supervisor")
        for number, stack in stacks.items():
            shown = "\n".join(main_first(stack).splitlines()[:STACK_LINES])
            log.error("stalled", rank=number, culprit=number == rank, stack=shown)
        running = self.running()
        self.stall = Failure(
            running[0] if running else None,
            STALLED,
            f"rank {rank} made no progress for {watch.limit:g} s (hardware.stall_seconds); "
            f"it was in: {_innermost(stacks.get(rank, ''))}",
            1,
        )
        return True


def deal(
    units: Sequence[Unit], notes: Path, config: RunConfig, layout: Layout, devices: Devices
) -> list[Lane]:
    """Units dealt out to as many lanes as there are devices for, none of them empty but the only one."""
    count = min(devices.lanes, max(1, len(units)))
    folders = [notes] if count == 1 else [notes / f"lane-{number}" for number in range(count)]
    return [
        Lane(number, folder, units[number::count], config, layout, devices)
        for number, folder in enumerate(folders)
    ]


def run_lanes(
    lanes: Sequence[Lane],
    order: Mapping[str, Any],
    *,
    command: Command,
    environ: Mapping[str, str],
    lock: int | None,
    stop: StopRequest,
    on_tick: Callable[[], None],
    tick_seconds: float = 0.5,
) -> list[tuple[int, Failure | None]]:
    """Run all lanes beside each other; `on_tick` is called meanwhile, and an error in it ends them all."""
    abandoned = threading.Event()
    with ThreadPoolExecutor(len(lanes), "lane") as pool:
        lives = [
            pool.submit(
                lane.live,
                order,
                command=command,
                environ=environ,
                lock=lock,
                stop=stop,
                abandoned=abandoned.is_set,
            )
            for lane in lanes
        ]
        try:
            while wait(lives, timeout=tick_seconds).not_done:
                on_tick()
        except BaseException:
            abandoned.set()
            raise
    return [life.result() for life in lives]


def _innermost(stack: str) -> str:
    """The innermost frame of the main thread in a faulthandler's dump, or the first line of anything else."""
    lines = [line.strip() for line in main_first(stack).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Current thread", "Thread"))), "unknown")
