"""Where a record comes from: who ran it and when, on what, with which versions.

It does not know what was measured.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer_job.files import read_json, write_json
from trainer_job.launch import Devices, available_cores
from trainer_job.units import Layout

SCHEMA_VERSION = 1  # of results.json and unit.json; keys are only ever added within one
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "numpy",
    "scikit-learn",
    "stratified-sentiment",
)


def now() -> str:
    """The time as ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def run_entry(layout: Layout, *, status: str, command: Sequence[str], devices: Devices) -> dict[str, Any]:
    """Who ran this and when; the id and the start survive interruptions."""
    path = layout.state / "run.json"
    run = read_json(path)
    if run is None:
        run = {"id": uuid.uuid4().hex[:12], "started": now()}
        write_json(path, run)
    finished = now() if status in ("complete", "partial") else None
    return {
        **run,
        "finished": finished,
        "command": list(command),
        "host": socket.gethostname(),
        "devices": {"kind": devices.kind, "processes": devices.processes, "text": devices.describe()},
    }


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Versions, machine and commit, as far as they can be known."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cores": available_cores(),
        "commit": os.environ.get("STRATIFIED_REVISION") or _commit(),
    }


def _commit() -> str | None:
    """The commit of the source tree, when the code runs out of one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
