"""When memory runs out: smaller batches for that unit from then on, at the same global batch.

Rows of one forward pass are halved and the rest is accumulated, so a step still means the same; evaluation
batches are halved too. Kept in the sweep's notes, so that later runs need not fail first. It does not know
how a unit is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer_job.config import RunConfig
from trainer_job.failures import Failure
from trainer_job.files import read_json, write_json
from trainer_job.launch import split_batch
from trainer_job.units import Unit

FILE = "shortages.json"


def read_shortages(state: Path) -> dict[str, Any]:
    """By unit name: `micro_batch_size`, `eval_batch_size`, and `events`, each of step, phase, from and to."""
    return read_json(state / FILE) or {}


def shrink(state: Path, config: RunConfig, failure: Failure, *, ranks: int) -> dict[str, Any] | None:
    """Halve the batches of the failed unit; returns the event, or None when they cannot become smaller.

    Args:
        state: the sweep's folder of notes.
        config: as it was given.
        failure: memory ran out in `failure.unit`.
        ranks: processes that share the global batch.
    """
    if failure.unit is None:
        return None
    known = read_shortages(state)
    entry = known.get(failure.unit.name, {"events": []})
    micro, evaluated = fitted_sizes(config, entry, ranks=ranks)
    smaller = _half(config.training.batch_size // ranks, micro), max(1, evaluated // 2)
    if smaller == (micro, evaluated):
        return None
    event = {
        "step": failure.step,
        "phase": failure.phase,
        "micro_batch_size": {"from": micro, "to": smaller[0]},
        "eval_batch_size": {"from": evaluated, "to": smaller[1]},
    }
    known[failure.unit.name] = {
        "micro_batch_size": smaller[0],
        "eval_batch_size": smaller[1],
        "events": [*entry["events"], event],
    }
    write_json(state / FILE, known)
    return event


def fitted_sizes(config: RunConfig, entry: Mapping[str, Any], *, ranks: int) -> tuple[int, int]:
    """(rows of a forward pass, rows of an evaluation pass) that a unit uses after its shortages."""
    micro, _ = split_batch(config, ranks)
    return entry.get("micro_batch_size", micro), entry.get("eval_batch_size", config.training.eval_batch_size)


def fitted(config: RunConfig, unit: Unit, shortages: Mapping[str, Any]) -> RunConfig:
    """The configuration with the unit's smaller batches; its hash is the same."""
    entry = shortages.get(unit.name)
    if entry is None:
        return config
    sizes = {name: entry[name] for name in ("micro_batch_size", "eval_batch_size")}
    return config.model_copy(update={"training": config.training.model_copy(update=sizes)})


def _half(share: int, micro: int) -> int:
    """The largest divisor of `share` up to half of `micro`; 1 stays 1."""
    return max(size for size in range(1, max(1, micro // 2) + 1) if share % size == 0)
