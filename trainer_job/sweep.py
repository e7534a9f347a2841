"""The supervisor: plan, start workers, watch, try again, record. It is the process of `run`, and PID 1 in a
container.

torchrun ends in 1 whatever its workers said, so the supervisor reads what they wrote (status.json of a unit,
failure-N.json of a rank) and decides the exit code itself. It never imports torch: it outlives whatever
breaks there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from trainer_job import lock
from trainer_job.config import RunConfig
from trainer_job.data.sources import locate
from trainer_job.errors import JobError, PartialFailure, Preempted, ResultsMismatch, TrainingFailed
from trainer_job.failures import Failure, Ledger, clear_failures, read_failure
from trainer_job.files import read_json, write_json
from trainer_job.launch import Devices, worker_command, worker_environment
from trainer_job.process import StopRequest, describe_exit, run_worker
from trainer_job.units import (
    Layout,
    Unit,
    config_hash,
    differing_keys,
    finished_records,
    identity,
    is_complete,
    planned_units,
    read_status,
    record_identity,
    write_status,
)

Recorder = Callable[[str], dict[str, Any]]


def source_signature(config: RunConfig) -> str:
    """SHA-256 over where the data lie, their sizes and times: cheap, and equal only if nothing was touched.

    Raises DataError when a domain's source is not there.
    """
    located = [locate(name, domain, config.data.root) for name, domain in config.data.domains.items()]
    return hashlib.sha256("\n".join(item.identity for item in located).encode()).hexdigest()


@dataclass
class Sweep:
    """One run of the sweep. `record(status)` rebuilds results.json, after every finished unit."""

    config: RunConfig
    layout: Layout
    devices: Devices
    environ: Mapping[str, str]
    record: Recorder
    stop: StopRequest
    command: Callable[[Devices, Path], list[str]] = worker_command
    ledger: Ledger = field(default_factory=Ledger)
    failed: set[Unit] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.log = structlog.get_logger("supervisor")
        self.units = planned_units(self.config)
        self.recorded = -1
        self.last: dict[str, Any] = {}

    def run(self) -> bool:
        """Train what is missing; True when there was anything to do. Raises JobError with the job's exit
        code.
        """
        with lock.hold(self.layout.results, on_takeover=self._report_takeover) as handle:
            self._check_folder()
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
        """Nothing to train: leave a complete record as it is; make it anew when it is missing or says
        otherwise.
        """
        found = read_json(self.layout.record)
        if found is not None and found.get("status") == "complete":
            self.last = found
        else:
            self._write("complete")

    def _write(self, status: str) -> None:
        self.last = self.record(status)

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

    def _check_folder(self) -> None:
        """Refuse a folder whose units were trained with other settings."""
        recorded = read_json(self.layout.state / "sweep.json")
        if recorded is None or recorded.get("config_hash") == config_hash(self.config):
            return
        if not any(self.layout.results.glob("*/seed-*/status.json")):
            return  # nothing was trained under the other configuration
        names = differing_keys(recorded.get("config", {}), self.config)
        raise ResultsMismatch(
            f"{self.layout.results}: holds units of another configuration (different: "
            f"{', '.join(names[:6]) or 'version'}); "
            "one folder holds one experiment: set another `results`, or move this one away"
        )

    def _attempt(self, handle: int, signature: str) -> None:
        """One life of the worker(s): start, wait, and draw the consequences."""
        state = self.layout.state
        clear_failures(state)
        units = self.pending()
        config_file = state / "worker.json"
        write_json(
            config_file,
            {
                "config": self.config.model_dump(mode="json"),
                "units": [[unit.variant, unit.seed] for unit in units],
                "signature": signature,
                "processes": self.devices.processes,
                "device": self.devices.kind,
            },
        )
        self.log.info("starting", units=[unit.name for unit in units], devices=self.devices.describe())
        code = run_worker(
            self.command(self.devices, config_file),
            environment=worker_environment(self.devices, self.config, self.environ),
            lock=handle,
            stop=self.stop,
            grace_seconds=max(1.0, self.config.hardware.grace_seconds - 5),
            on_tick=self._tick,
        )
        self._tick()
        self._consequences(code)
        if units and self.pending() == units and code == 0:
            raise JobError(
                "the worker ended well but finished nothing; run again, and report this if it comes back"
            )

    def _tick(self) -> None:
        """Rebuild results.json whenever another unit has been finished."""
        count = sum(self._complete(unit) for unit in self.units)
        if count != self.recorded:
            self._write("running")
            self.recorded = count

    def _consequences(self, code: int) -> None:
        failure = read_failure(self.layout.state)
        running = [unit for unit in self.units if read_status(self.layout.unit(unit))["state"] == "running"]
        saved = [unit for unit in self.units if read_status(self.layout.unit(unit))["state"] == "preempted"]
        if self.stop.requested or (saved and failure is None):
            self._preempt(running)
        if failure is None and code == 0:
            return
        if failure is None:
            culprit = running[0] if running else None
            failure = Failure(culprit, "WorkerLost", f"the worker ended with {describe_exit(code)}", 1)
        self._judge(failure)

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

    def _judge(self, failure: Failure) -> None:
        """Decide after a failure: end the job, give the unit up, or try it again."""
        if failure.unit is None:
            self._write_anyway("partial")
            raise failure.as_error()
        folder = self.layout.unit(failure.unit)
        if self.ledger.is_final(failure):
            self.failed.add(failure.unit)
            write_status(folder, "failed", error={"kind": failure.kind, "message": failure.message})
            self.log.error("unit_failed", unit=failure.unit.name, kind=failure.kind, error=failure.message)
        else:
            write_status(folder, "pending", error={"kind": failure.kind, "message": failure.message})
            self.log.warning("unit_retry", unit=failure.unit.name, kind=failure.kind, error=failure.message)

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
