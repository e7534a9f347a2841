"""How many processes train, on which devices, one unit or several at a time, and what starts them.

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
from trainer_job.files import read_json
from trainer_job.nodes import ALONE, Nodes

TRAINING_PACKAGES = ("accelerate", "datasets", "sklearn", "scipy", "matplotlib", "jinja2", "jsonschema")


# glibc maps and unmaps each array above 32 MiB, which the kernel fills with zeros every time: 4 to 15 % of a
# step on a CPU at 256 tokens, a quarter where attention weights are written out. In the heap they stay.
ONE_HEAP = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**33))


@dataclass(frozen=True)
class Devices:
    """What the job will use: `kind` is "cpu" or "cuda"; `processes` of each of `nodes` train together on one
    global batch; `lanes` units are trained at the same time; `reason` says why so.
    """

    kind: str
    processes: int
    gpus: tuple[str, ...] = ()
    lanes: int = 1
    nodes: Nodes = ALONE
    reason: str = ""

    @property
    def ranks(self) -> int:
        """Processes that train one unit together, over all nodes."""
        return self.processes * self.nodes.count

    def describe(self) -> str:
        """In words, for the plan and the report."""
        name = f"{self.processes * self.lanes} GPU(s)" if self.kind == "cuda" else "CPU"
        if self.lanes > 1:
            return f"{name}, {self.lanes} units at a time, one process each"
        if self.processes == 1 and self.nodes.count == 1:
            return f"{name}, one process"
        how = "DDP" if self.kind == "cuda" else f"{self.processes} processes over gloo,"
        where = f" on each of {self.nodes.count} nodes" if self.nodes.count > 1 else ""
        return f"{name}{where}, {how} through torchrun"


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


def choose_devices(
    config: RunConfig, gpus: tuple[str, ...], *, units: int | None = None, nodes: Nodes = ALONE
) -> Devices:
    """Settle device kind, process count and strategy for so many units (None: all of the configuration).

    Raises ConfigError when they cannot be had or split the batch unevenly.
    """
    hardware = config.hardware
    kind = ("cuda" if gpus else "cpu") if hardware.device == "auto" else hardware.device
    if kind == "cuda" and not gpus:
        raise ConfigError(
            "hardware.device=cuda: no GPU is visible here; give the job a GPU or set hardware.device=cpu"
        )
    if kind == "cpu" and hardware.precision in ("tf32", "fp16"):
        raise ConfigError(
            f"hardware.precision={hardware.precision}: a CPU trains in fp32 or bf16; set one of them or auto"
        )
    if kind == "cpu" and hardware.fsdp:
        raise ConfigError(
            "hardware.fsdp=true: a CPU shards nothing; give the job GPUs or set hardware.fsdp=false"
        )
    there = max(1, len(gpus)) if kind == "cuda" else 1
    wanted = there if hardware.processes == "auto" else hardware.processes
    if kind == "cuda" and wanted > len(gpus):
        raise ConfigError(
            f"hardware.processes={wanted}: {len(gpus)} GPU(s) are visible; set hardware.processes ≤ "
            f"{len(gpus)}"
        )
    count = len(config.variants) * len(config.seeds) if units is None else units
    apart, reason = _strategy(config, wanted, count, nodes)
    if not apart and hardware.processes == "auto":
        wanted = _largest_divisor(config.training.batch_size // nodes.count, wanted)
    split_batch(config, 1 if apart else wanted * nodes.count)
    return Devices(
        kind=kind,
        processes=1 if apart else wanted,
        gpus=gpus[:wanted] if kind == "cuda" else (),
        lanes=wanted if apart else 1,
        nodes=nodes,
        reason=reason,
    )


def _strategy(config: RunConfig, processes: int, units: int, nodes: Nodes) -> tuple[bool, str]:
    """Whether each process trains a unit of its own, and why."""
    hardware = config.hardware
    what = f"{units} unit(s), {processes} process(es)"
    if nodes.count > 1 or hardware.fsdp:
        cause = f"{nodes.count} nodes" if nodes.count > 1 else "hardware.fsdp"
        return False, f"ddp: {cause}, so all processes train one unit"
    if processes == 1:
        return False, "one process trains one unit after the other"
    if hardware.strategy != "auto":
        return hardware.strategy == "variant-per-gpu", f"{hardware.strategy}: as configured"
    if units >= processes:
        return True, f"variant-per-gpu: {what}, so each trains a unit of its own and none waits for another"
    return False, f"ddp: {what}, so all train one unit together"


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


def worker_command(devices: Devices, config_file: Path, *, module: str = "trainer_job.worker") -> list[str]:
    """The command that starts the worker(s); nodes meet under the name that the order carries."""
    worker = [module, "--config-file", str(config_file)]
    if devices.ranks == 1:
        return [sys.executable, "-m", *worker]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(devices.processes)]
    nodes = devices.nodes
    if nodes.count == 1:
        meeting = ["--standalone"]
    else:
        attempt = str((read_json(config_file) or {}).get("attempt", "sweep"))
        meeting = ["--nnodes", str(nodes.count), "--rdzv-backend", "c10d", "--rdzv-endpoint", nodes.endpoint]
        meeting += ["--rdzv-id", attempt, "--rdzv-conf", f"is_host={int(nodes.rank == 0)},join_timeout=300"]
    return [sys.executable, *torchrun, *meeting, "-m", *worker]


def worker_environment(
    devices: Devices, config: RunConfig, environ: Mapping[str, str], *, lane: int = 0
) -> dict[str, str]:
    """The environment of a lane's workers: devices, threads, quiet libraries, torchrun's patience within the
    grace period.
    """
    child = {name: value for name, value in environ.items() if not name.startswith("PET_")}
    mine = devices.gpus[lane : lane + 1] if devices.lanes > 1 else devices.gpus
    child["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    child["STRATIFIED_SUPERVISOR_PID"] = str(os.getpid())
    child["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(max(5, int(config.hardware.grace_seconds - 15)))
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: on cores shared with others, twice as fast
        "OMP_NUM_THREADS": str(max(1, available_cores() // (devices.processes * devices.lanes))),
    }
    for name, value in (quiet | (ONE_HEAP if devices.kind == "cpu" else {})).items():
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
