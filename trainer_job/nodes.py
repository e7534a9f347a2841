"""Several machines that train one unit together: who they are, and what all but the first do.

The first node's supervisor decides and records, as on one machine; the others start their processes for each
attempt that it announces on the shared volume, and end with its exit code. Where torchrun's agents meet is
configured, or said by the environment that Kubeflow's trainer, JobSet or torchrun itself sets.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from trainer_job.config import HardwareConfig
from trainer_job.errors import ConfigError, JobError, Preempted
from trainer_job.files import read_json, write_json
from trainer_job.process import StopRequest

ANNOUNCED = "nodes.json"
PATIENCE = 900.0  # seconds without a word of the first node


@dataclass(frozen=True)
class Nodes:
    """How many machines, which of them this is, and HOST:PORT where their agents meet."""

    count: int = 1
    rank: int = 0
    endpoint: str = ""


ALONE = Nodes()


def find_nodes(hardware: HardwareConfig, environ: Mapping[str, str]) -> Nodes:
    """The nodes by configuration, else by PET_… variables (torchrun's, set by Kubeflow) or an Indexed Job's.

    Raises ConfigError where rank or meeting point are not to be found, or do not fit.
    """
    count = hardware.nodes if hardware.nodes > 1 else _number(environ, "PET_NNODES") or 1
    if count == 1:
        return ALONE
    rank = hardware.node_rank
    for name in ("PET_NODE_RANK", "JOB_COMPLETION_INDEX"):
        rank = _number(environ, name) if rank is None else rank
    endpoint = hardware.rendezvous or environ.get("PET_RDZV_ENDPOINT") or _master(environ)
    if rank is None or not endpoint:
        raise ConfigError(
            f"{count} nodes: node_rank={rank}, rendezvous={endpoint or None!r}; set hardware.node_rank and "
            "hardware.rendezvous=HOST:PORT, or PET_NODE_RANK and PET_MASTER_ADDR"
        )
    if rank >= count:
        raise ConfigError(f"hardware.node_rank={rank}: there are {count} nodes; count from 0 to {count - 1}")
    return Nodes(count, rank, endpoint)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").partition(":")[2] or environ.get(name, "")  # torchrun also takes MIN:MAX
    return int(text) if text.isdigit() else None


def _master(environ: Mapping[str, str]) -> str:
    host = environ.get("PET_MASTER_ADDR", "")
    return f"{host}:{environ.get('PET_MASTER_PORT', '29400')}" if host else ""


def announce(order_file: Path, order: Mapping[str, Any]) -> str:
    """The first node's: write the order, under a name of its own, then tell the others of it."""
    name = uuid.uuid4().hex
    write_json(order_file, {**order, "attempt": name})
    write_json(order_file.parent / ANNOUNCED, {"attempt": name, "time": time.time()})
    return name


def announce_end(state: Path, code: int) -> None:
    """The first node's: tell the others that the job is over, and how."""
    write_json(state / ANNOUNCED, {"attempt": None, "exit_code": code, "time": time.time()})


def follow(
    state: Path,
    *,
    start: Callable[[Path], int],
    stop: StopRequest,
    patience: float = PATIENCE,
    pause: float = 0.5,
) -> int:
    """What another node does: take part in each attempt until the end is announced; returns the job's code.

    Args:
        state: the sweep's folder of notes, on the volume that all nodes share.
        start: runs this node's processes for the order in a file, until they end.
        stop: what SIGTERM asks of this node; its ranks tell all others.
        patience: seconds without a new attempt or an end.
        pause: between two looks.

    Raises:
        Preempted: asked to stop.
        JobError: nothing was heard for too long.
    """
    log = structlog.get_logger("node")
    joined = {_told(state).get("time")}  # what was said before we came is not for us
    if _told(state).get("attempt") and not stop.requested:
        joined = set()
    heard = time.monotonic()
    while not stop.requested:
        told = _told(state)
        if told.get("time") in joined or not told:
            if time.monotonic() - heard > patience:
                raise JobError(
                    f"{state / ANNOUNCED}: no word of the first node for {patience:.0f} s; start all nodes "
                    "on one volume, with the same `results`"
                )
            time.sleep(pause)
            continue
        joined.add(told["time"])
        if told["attempt"] is None:
            return int(told["exit_code"])
        log.info("joining", attempt=told["attempt"])
        start(state / "worker.json")
        heard = time.monotonic()
    raise Preempted(f"stopped by {stop.signal_name}; the first node records what was saved")


def _told(state: Path) -> dict[str, Any]:
    return read_json(state / ANNOUNCED) or {}
