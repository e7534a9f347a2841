"""How many processes train, on which devices, and the command line and environment that start them.

More than one process always goes through torchrun; one process never sees more than one GPU, so that
`nn.DataParallel` cannot slip in. Nothing here imports torch: devices are counted from outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError

TRAINING_PACKAGES = ("accelerate", "datasets", "sklearn", "scipy", "matplotlib", "jinja2", "jsonschema")


@dataclass(frozen=True)
class Devices:
    """What the job will use: `kind` is "cpu" or "cuda"; `processes` train together on one global batch."""

    kind: str
    processes: int
    gpus: tuple[str, ...] = ()

    def describe(self) -> str:
        """In words, for the plan and the report."""
        if self.kind == "cuda":
            how = "DDP through torchrun" if self.processes > 1 else "one process"
            return f"{self.processes} GPU(s), {how}"
        how = (
            f"{self.processes} processes over gloo, through torchrun" if self.processes > 1 else "one process"
        )
        return f"CPU, {how}"


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Identifiers of the GPUs that a child process would see, asked of the driver's tool."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(part.strip() for part in chosen.split(",") if part.strip() not in ("", "-1"))
    tool = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if tool is None:
        return ()
    try:
        listing = subprocess.run(
            [tool, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listing.stdout.splitlines() if line.strip().isdigit())


def choose_devices(config: RunConfig, gpus: tuple[str, ...]) -> Devices:
    """Settle device kind and process count. Raises ConfigError when they cannot be had or split the batch
    unevenly.
    """
    hardware = config.hardware
    kind = ("cuda" if gpus else "cpu") if hardware.device == "auto" else hardware.device
    if kind == "cuda" and not gpus:
        raise ConfigError(
            "hardware.device=cuda: no GPU is visible here; give the job a GPU or set hardware.device=cpu"
        )
    wanted = hardware.processes
    if wanted == "auto":
        wanted = _largest_divisor(config.training.batch_size, len(gpus)) if kind == "cuda" else 1
    if kind == "cuda" and wanted > len(gpus):
        raise ConfigError(
            f"hardware.processes={wanted}: {len(gpus)} GPU(s) are visible; set hardware.processes ≤ "
            f"{len(gpus)}"
        )
    split_batch(config, wanted)
    return Devices(kind=kind, processes=wanted, gpus=gpus[:wanted] if kind == "cuda" else ())


def _largest_divisor(number: int, at_most: int) -> int:
    """The largest count of processes, up to `at_most`, that shares a batch of `number` rows evenly."""
    return max(count for count in range(1, max(at_most, 1) + 1) if number % count == 0)


def split_batch(config: RunConfig, processes: int) -> tuple[int, int]:
    """(rows per process and forward pass, accumulation steps). Raises ConfigError when the global batch does
    not divide.
    """
    batch = config.training.batch_size
    if batch % processes:
        raise ConfigError(
            f"training.batch_size={batch} does not divide by {processes} processes; set a multiple of "
            f"{processes}"
        )
    share = batch // processes
    micro = config.training.micro_batch_size
    if micro is None or micro >= share:
        return share, 1
    if share % micro:
        raise ConfigError(
            f"training.micro_batch_size={micro} does not divide the {share} rows a process; set a divisor of "
            f"{share}"
        )
    return micro, share // micro


def worker_command(devices: Devices, config_file: Path) -> list[str]:
    """The command that starts the worker(s)."""
    module = ["trainer_job.worker", "--config-file", str(config_file)]
    if devices.processes == 1:
        return [sys.executable, "-m", *module]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices.processes)]
    return [sys.executable, *torchrun, "-m", *module]


def worker_environment(devices: Devices, config: RunConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """The workers' environment: devices, threads, quiet libraries, torchrun's patience within the grace
    period.
    """
    child = dict(environ)
    child["CUDA_VISIBLE_DEVICES"] = ",".join(devices.gpus)
    child["STRATIFIED_SUPERVISOR_PID"] = str(os.getpid())
    child["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(max(5, int(config.hardware.grace_seconds - 15)))
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: on cores shared with others, twice as fast
        "OMP_NUM_THREADS": str(max(1, available_cores() // devices.processes)),
    }
    for name, value in quiet.items():
        child.setdefault(name, value)
    return child


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_packages(present: Callable[[str], object] = find_spec) -> None:
    """Raises ConfigError where the packages of the extra `train` are not installed: no retry would help."""
    missing = [name for name in TRAINING_PACKAGES if not present(name)]
    if missing:
        raise ConfigError(
            f"packages {', '.join(missing)} are not installed, and all but `plan` needs them; "
            "pip install 'stratified-sentiment[train]'"
        )
