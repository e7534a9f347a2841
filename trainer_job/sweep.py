"""The supervisor: plan, start workers, watch, try again, record. It is the process of `run`, and PID 1 in a
container.

torchrun ends in 1 whatever its workers said, so the supervisor reads what they wrote (status.json of a unit,
failure-N.json of a rank) and decides the exit code itself. It never imports torch: it outlives whatever
breaks there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from trainer_job import lock
from trainer_job.config import RunConfig
from trainer_job.errors import JobError, PartialFailure, Preempted, TrainingFailed
from trainer_job.failures import OUT_OF_MEMORY, WORKER_LOST, Failure, Ledger
from trainer_job.files import read_json
from trainer_job.folder import check_folder, is_whole, source_signature
from trainer_job.lanes import Command, Lane, deal, run_lanes
from trainer_job.launch import Devices, worker_command
from trainer_job.leases import Leases
from trainer_job.nodes import announce_end
from trainer_job.process import StopRequest
from trainer_job.shards import Shard
from trainer_job.shortages import read_shortages, shrink
from trainer_job.units import (
    Layout,
    Unit,
    config_hash,
    finished_records,
    identity,
    is_complete,
    planned_units,
    read_status,
    record_identity,
    write_status,
)

Recorder = Callable[[str], dict[str, Any]]


@dataclass
class Sweep:
    """One run of the sweep, or of a shard of it. `record(status)` rebuilds results.json, after every finished
    unit.
    """

    config: RunConfig
    layout: Layout
    devices: Devices
    environ: Mapping[str, str]
    record: Recorder
    stop: StopRequest
    command: Command = worker_command
    shard: Shard | None = None
    ledger: Ledger = field(default_factory=Ledger)
    failed: set[Unit] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.log = structlog.get_logger("supervisor")
        self.planned = planned_units(self.config)
        self.units = self.planned if self.shard is None else self.shard.of(self.planned)
        self.notes = self.layout.state if self.shard is None else self.layout.state / self.shard.name
        self.leases = Leases(self.layout.state / "leases")
        self.recorded = -1
        self.last: dict[str, Any] = {}

    def run(self) -> bool:
        """Train what is missing; True when there was anything to do. Raises JobError with the job's exit
        code.
        """
        try:
            with self._alone() as handle:
                worked = self._run(handle)
        except JobError as error:
            self._tell_nodes(error.exit_code)
            raise
        self._tell_nodes(0)
        return worked

    def _tell_nodes(self, code: int) -> None:
        if self.devices.nodes.count > 1:
            announce_end(self.notes, code)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Nobody else trains these units: the folder is ours, or shared with other shards under leases."""
        takeover = self._report_takeover
        with lock.hold(self.layout.results, shared=self.shard is not None, on_takeover=takeover) as handle:
            if self.shard is None:
                yield handle
                return
            with self.leases.hold([unit.name for unit in self.pending()]):
                yield handle

    def _run(self, handle: int) -> bool:
        check_folder(self.layout, self.config)
        signature = source_signature(self.config)
        if not self.pending() and self._data_untouched(signature):
            self._keep_or_rebuild()
            return False
        record_identity(self.layout, self.config)
        while not self._finished(signature):
            self._attempt(handle, signature)
        self._conclude()
        return True

    def _keep_or_rebuild(self) -> None:
        """Nothing to train: leave a whole record as it is; make it anew when it is missing, says otherwise or
        lacks units.
        """
        found = read_json(self.layout.record)
        if found is not None and is_whole(found, self.config):
            self.last = found
        else:
            self._write("complete")

    def _write(self, status: str) -> None:
        """Rebuild the record. A shard's own end is the sweep's only when every unit is complete."""
        if self.shard is None:
            self.last = self.record(status)
            return
        with lock.exclusive(self.layout.state / "record.lock"):
            whole = all(self._complete(unit) for unit in self.planned)
            self.last = self.record("complete" if whole else "running" if status == "complete" else status)

    def _write_anyway(self, status: str) -> None:
        """Record a bad end as far as possible: the reason for it must not be lost over the record."""
        try:
            self._write(status)
        except Exception as error:  # such as the full disk that is being reported
            self.log.error("record_not_written", kind=type(error).__name__, error=str(error))

    def pending(self) -> list[Unit]:
        """Units that are neither complete for the recorded data nor failed for good in this run."""
        return [unit for unit in self.units if unit not in self.failed and not self._complete(unit)]

    def _complete(self, unit: Unit) -> bool:
        fingerprint = (read_json(self.layout.state / "data.json") or {}).get("fingerprint")
        digest = config_hash(self.config)
        wanted = identity(unit, fingerprint=fingerprint, config_digest=digest) if fingerprint else None
        return is_complete(self.layout.unit(unit), wanted)

    def _data_untouched(self, signature: str) -> bool:
        return (read_json(self.layout.state / "data.json") or {}).get("signature") == signature

    def _finished(self, signature: str) -> bool:
        return not self.pending() and self._data_untouched(signature)

    def _attempt(self, handle: int, signature: str) -> None:
        """One life of the worker(s): start, wait, and draw the consequences."""
        units = self.pending()
        order = {
            "config": self.config.model_dump(mode="json"),
            "signature": signature,
            "processes": self.devices.ranks,
            "device": self.devices.kind,
            "shortages": read_shortages(self.layout.state),
        }
        self.log.info("starting", units=[unit.name for unit in units], devices=self.devices.describe())
        lanes = deal(units, self.notes, self.config, self.layout, self.devices)
        ended = run_lanes(
            lanes,
            order,
            command=self.command,
            environ=self.environ,
            lock=handle,
            stop=self.stop,
            on_tick=self._tick,
        )
        self._tick()
        self._consequences(lanes, ended, progress=self.pending() != units)
        if units and self.pending() == units and all(code == 0 for code, _ in ended):
            raise JobError(
                "the worker ended well but finished nothing; run again, and report this if it comes back"
            )

    def _tick(self) -> None:
        """Rebuild results.json whenever another unit has been finished; renew leases."""
        if self.shard is not None:
            self.leases.renew()
        count = sum(self._complete(unit) for unit in self.units)
        if count != self.recorded:
            self._write("running")
            self.recorded = count

    def _consequences(
        self, lanes: list[Lane], ended: list[tuple[int, Failure | None]], *, progress: bool
    ) -> None:
        failures = [failure for _, failure in ended if failure is not None]
        running = [unit for lane in lanes for unit in lane.running()]
        saved = [unit for unit in self.units if read_status(self.layout.unit(unit))["state"] == "preempted"]
        if self.stop.requested or (saved and not failures):
            self._preempt(running)
        for failure in sorted(failures, key=lambda item: item.unit is None):  # what ends the job comes last
            self._judge(failure, progress=progress)

    def _preempt(self, running: list[Unit]) -> None:
        for unit in running:  # no checkpoint of this moment; the last complete one counts
            write_status(self.layout.unit(unit), "preempted")
        self._write_anyway("preempted")
        left = len(self.pending())
        raise Preempted(
            f"stopped by {self.stop.signal_name or 'a signal to the worker'} with {left} of "
            f"{len(self.units)} units to go; "
            "finished units and checkpoints are kept: run the same command to go on"
        )

    def _judge(self, failure: Failure, *, progress: bool) -> None:
        """Decide after a failure: end the job, give the unit up, or try it again."""
        if failure.unit is None and failure.kind == WORKER_LOST and progress:
            # Between two units, or after the last: each such life finishes one more, so they come to an end.
            self.log.warning("worker_lost", error=failure.message)
            return
        if failure.unit is None:
            self._write_anyway("partial")
            raise failure.as_error()
        folder = self.layout.unit(failure.unit)
        if failure.kind == OUT_OF_MEMORY and self._shrunk(failure):
            return
        if self.ledger.is_final(failure):
            self.failed.add(failure.unit)
            write_status(folder, "failed", error={"kind": failure.kind, "message": failure.message})
            self.log.error("unit_failed", unit=failure.unit.name, kind=failure.kind, error=failure.message)
        else:
            write_status(folder, "pending", error={"kind": failure.kind, "message": failure.message})
            self.log.warning("unit_retry", unit=failure.unit.name, kind=failure.kind, error=failure.message)

    def _shrunk(self, failure: Failure) -> bool:
        """Whether the unit can be tried again with smaller batches."""
        event = shrink(self.layout.state, self.config, failure, ranks=self.devices.ranks)
        if event is None or failure.unit is None:
            return False
        error = {"kind": failure.kind, "message": failure.message}
        write_status(self.layout.unit(failure.unit), "pending", error=error)
        self.log.warning(
            "out_of_memory",
            unit=failure.unit.name,
            consequence="smaller batches from now on, at the same global batch",
            global_batch_size=self.config.training.batch_size,
            **event,
        )
        return True

    def _conclude(self) -> None:
        """Write the final record; raises when units failed for good."""
        if not self.failed:
            self._write("complete")
            return
        self._write_anyway("partial")
        names = ", ".join(sorted(unit.name for unit in self.failed))
        done = len(finished_records(self.layout, config_digest=config_hash(self.config)))
        if done == 0:
            raise TrainingFailed(
                f"every unit failed for good ({names}); see status.json of each, mend the cause, run again"
            )
        raise PartialFailure(
            f"{len(self.failed)} of {len(self.units)} units failed for good ({names}), the others are "
            "complete; "
            "see their status.json, mend the cause and run again"
        )

    def _report_takeover(self, holder: dict[str, object]) -> None:
        self.log.warning("lock_taken_over", reason="the former holder is gone", **holder)
