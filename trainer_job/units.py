"""The unit of work, (variant, seed, data fingerprint, configuration hash), and where each thing of it lies on
disk.

`status.json` of a unit is the only word that a worker and the supervisor exchange about it. This module knows
paths, identities and states; it does not know how a unit is trained.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer_job.config import RunConfig
from trainer_job.files import plain, read_json, write_json

State = Literal["pending", "running", "complete", "failed", "preempted"]
# What may change between two runs on one folder without making the finished units another experiment.
_FREE = {
    "training": {"log_every", "save_total_limit", "keep_checkpoints", "micro_batch_size", "eval_batch_size"},
    "hardware": {
        "processes",
        "strategy",
        "device",
        "workers",
        "grace_seconds",
        "stall_seconds",
        "nodes",
        "node_rank",
        "rendezvous",
    },
}


def config_hash(config: RunConfig) -> str:
    """SHA-256 over everything that decides a unit's weights: model, data, training, precision.

    Variants, seeds and folders are left out, so that a sweep can be widened in place; so are settings that
    only say how the same numbers are computed (process count, micro-batch, logging).
    """
    tree = config.model_dump(mode="json")
    kept = {name: tree[name] for name in ("model", "data", "training", "hardware")}
    for section, names in _FREE.items():
        kept[section] = {key: value for key, value in kept[section].items() if key not in names}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def differing_keys(recorded: dict[str, Any], config: RunConfig) -> list[str]:
    """Dotted names of the settings in which a recorded configuration and this one differ, hash-relevant ones
    only.
    """
    current = config.model_dump(mode="json")
    names: list[str] = []

    def walk(old: Any, new: Any, place: tuple[str, ...]) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for key in sorted(old.keys() | new.keys()):
                walk(old.get(key), new.get(key), (*place, key))
        elif old != new and not (len(place) > 1 and place[1] in _FREE.get(place[0], set())):
            names.append(".".join(place))

    for section in ("model", "data", "training", "hardware"):
        walk(recorded.get(section), current[section], (section,))
    return names


def control_of(variant: str) -> str | None:
    """The control in a sweep's name of a variant; None for a variant proper."""
    return variant.partition(":")[2] or None


def folder_name(variant: str) -> str:
    """A sweep's name of a variant as the name of a folder."""
    return variant.replace(":", "+")


@dataclass(frozen=True)
class Unit:
    """One training run of the sweep; `variant` may name a control, as in `moe:shuffled`."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """`variant:seed`, as people type it."""
        return f"{self.variant}:{self.seed}"

    @property
    def base(self) -> str:
        """The variant proper: `moe` of `moe:shuffled`."""
        return self.variant.partition(":")[0]

    @property
    def control(self) -> str | None:
        """The control: `shuffled` of `moe:shuffled`; None for a variant proper."""
        return control_of(self.variant)

    @property
    def path(self) -> str:
        """Its folder relative to the results: `moe+shuffled/seed-0`, for a colon is no character of a file
        name.
        """
        return f"{folder_name(self.variant)}/seed-{self.seed}"


@dataclass(frozen=True)
class Layout:
    """Every path below the results and logs folders, in one place."""

    results: Path
    logs: Path

    @classmethod
    def of(cls, config: RunConfig) -> Layout:
        """The layout of a configuration; paths stay relative to the working directory when they were."""
        return cls(results=config.results, logs=config.logs)

    @property
    def state(self) -> Path:
        """Folder of the sweep's own records: identity, data summary, baselines, worker session."""
        return self.results / ".state"

    @property
    def record(self) -> Path:
        """The sweep's results.json."""
        return self.results / "results.json"

    def variant(self, name: str) -> Path:
        """The folder that becomes the bundle of the variant's best seed."""
        return self.results / folder_name(name)

    def unit(self, unit: Unit) -> Path:
        """The folder of one unit: status.json, unit.json, predictions.parquet, checkpoint-*/, bundle/."""
        return self.results / unit.path

    def unit_logs(self, unit: Unit) -> Path:
        """TensorBoard events and JSON lines of one unit."""
        return self.logs / unit.path


def planned_units(config: RunConfig) -> list[Unit]:
    """Seeds outside, variants inside: after the first seed each variant has a result already."""
    return [Unit(variant, seed) for seed in config.seeds for variant in config.variants]


def identity(unit: Unit, *, fingerprint: str, config_digest: str) -> str:
    """SHA-256 that names a unit's work exactly."""
    text = json.dumps([unit.variant, unit.seed, fingerprint, config_digest])
    return hashlib.sha256(text.encode()).hexdigest()


def read_status(folder: Path) -> dict[str, Any]:
    """A unit's status; `{"state": "pending"}` when it has none."""
    return read_json(folder / "status.json") or {"state": "pending"}


def write_status(folder: Path, state: State, **more: Any) -> None:
    """Replace a unit's status: state, time (Unix seconds) and whatever else is known."""
    write_json(folder / "status.json", {"state": state, "updated": round(time.time(), 3), **more})


def is_complete(
    folder: Path, identity_digest: str | None = None, *, config_digest: str | None = None
) -> bool:
    """Whether the unit is finished: status, record and bundle manifest are there, and what is given of its
    identity and of its configuration's hash agrees.
    """
    status, record = read_status(folder), read_json(folder / "unit.json")
    if status["state"] != "complete" or record is None or not (folder / "bundle" / "manifest.json").is_file():
        return False
    wanted = {"identity": identity_digest, "config_hash": config_digest}
    return all(digest is None or record.get(name) == digest for name, digest in wanted.items())


def finished_records(layout: Layout, *, config_digest: str) -> list[dict[str, Any]]:
    """The unit.json of every complete unit of this configuration, in order of variant folder and seed."""
    records = []
    for path in sorted(layout.results.glob("*/seed-*/unit.json")):
        record = read_json(path)
        if record is not None and is_complete(path.parent, config_digest=config_digest):
            records.append(record)
    return sorted(records, key=lambda item: (str(item["variant"]), int(item["seed"])))


def record_identity(layout: Layout, config: RunConfig) -> None:
    """Write which configuration the results folder belongs to."""
    write_json(
        layout.state / "sweep.json",
        {"config_hash": config_hash(config), "config": plain(config.model_dump(mode="json"))},
    )
