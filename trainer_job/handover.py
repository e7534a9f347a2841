"""After a sweep: every finished variant's bundle gets its ONNX file, for services without torch.

Each export is a process of its own, since the supervisor imports no torch, and is ended by the signals that
end the job. It does not know what a service does with the files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from trainer_job import lock
from trainer_job.errors import JobError, Preempted
from trainer_job.files import read_json
from trainer_job.process import StopRequest, describe_exit, run_worker
from trainer_job.units import Layout

Command = Callable[[Path], list[str]]


def export_command(bundle: Path) -> list[str]:
    """The command line that exports one bundle."""
    return [sys.executable, "-m", "trainer_job", "export", str(bundle)]


def without_export(layout: Layout, record: Mapping[str, Any]) -> list[Path]:
    """Bundles of the record's variants that hold no ONNX file in fp32; what is selected comes first."""
    selected = (record.get("selected") or {}).get("variant")
    names = sorted(record.get("variants", {}), key=lambda name: (name != selected, name))
    found = []
    for name in names:
        manifest = read_json(layout.variant(name) / "manifest.json")
        if manifest is None:  # a control: its bundle stays with its unit, where no service looks
            continue
        exports = manifest.get("exports", {}).values()
        if not any((entry["format"], entry["precision"]) == ("onnx", "fp32") for entry in exports):
            found.append(layout.variant(name))
    return found


def export_missing(
    layout: Layout,
    record: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    stop: StopRequest,
    grace_seconds: float,
    shared: bool = False,
    command: Command = export_command,
) -> list[Path]:
    """Export what is not exported yet, under the folder's lock; the bundles that were.

    Beside other shards (`shared`) only what completes the sweep exports, one shard after the other. Raises
    Preempted when asked to stop, JobError when an export fails: the sweep itself stays complete.
    """
    if (shared and record.get("status") != "complete") or not without_export(layout, record):
        return []
    log = structlog.get_logger("handover")
    environment = {**environ, "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
    alone = lock.exclusive(layout.state / "export.lock")
    with lock.hold(layout.results, shared=shared) as handle, alone:
        bundles = without_export(layout, record)
        for bundle in bundles:
            if stop.requested:
                raise _stopped(stop, bundle)
            log.info("exporting", bundle=str(bundle))
            code = run_worker(
                command(bundle),
                environment=environment,
                lock=handle,
                stop=stop,
                grace_seconds=grace_seconds,
                on_tick=lambda: None,
            )
            if stop.requested:
                raise _stopped(stop, bundle)
            if code != 0:
                raise JobError(
                    f"{bundle}: its export to ONNX ended with {describe_exit(code)}; the sweep is complete: "
                    f"see the lines above, and try `stratified-train export {bundle}`"
                )
    return bundles


def _stopped(stop: StopRequest, bundle: Path) -> Preempted:
    return Preempted(
        f"stopped by {stop.signal_name} while exporting {bundle.name}; the sweep is complete: "
        "run the same command to export the rest"
    )
