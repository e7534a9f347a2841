"""What a results folder must be before a sweep may go on in it: of this configuration, of no later version.

It does not know how units are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from trainer_job.config import RunConfig
from trainer_job.data.sources import locate
from trainer_job.errors import ResultsMismatch
from trainer_job.files import read_json
from trainer_job.provenance import SCHEMA_VERSION
from trainer_job.units import Layout, config_hash, differing_keys, planned_units


def source_signature(config: RunConfig) -> str:
    """SHA-256 over where the data lie, their sizes and times: cheap, and equal only if nothing was touched.

    Raises DataError when a domain's source is not there.
    """
    located = [locate(name, domain, config.data.root) for name, domain in config.data.domains.items()]
    return hashlib.sha256("\n".join(item.identity for item in located).encode()).hexdigest()


def check_folder(layout: Layout, config: RunConfig) -> None:
    """Refuse a folder whose units were trained with other settings, or recorded by a later version.

    Raises ResultsMismatch.
    """
    refuse_newer(layout)
    recorded = read_json(layout.state / "sweep.json") or read_json(layout.record)  # notes can be lost
    if recorded is None or recorded.get("config_hash") == config_hash(config):
        return
    if not any(layout.results.glob("*/seed-*/status.json")):
        return  # nothing was trained under the other configuration
    names = differing_keys(recorded.get("config", {}), config)
    raise ResultsMismatch(
        f"{layout.results}: holds units of another configuration (different: "
        f"{', '.join(names[:6]) or 'version'}); "
        "one folder holds one experiment: set another `results`, or move this one away"
    )


def is_whole(record: Mapping[str, Any] | None, config: RunConfig) -> bool:
    """Whether a record is the complete one of this configuration, with all its units."""
    if record is None or record.get("status") != "complete":
        return False
    units = record.get("units", [])
    done = {(unit["variant"], unit["seed"]) for unit in units if unit["status"] == "complete"}
    planned = {(unit.variant, unit.seed) for unit in planned_units(config)}
    return record.get("config_hash") == config_hash(config) and planned <= done


def refuse_newer(layout: Layout) -> None:
    """Raises ResultsMismatch where a later version of this program has recorded results: it would be lost."""
    version = (read_json(layout.record) or {}).get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResultsMismatch(
            f"{layout.record}: schema_version is {version}, this program writes {SCHEMA_VERSION}; install "
            "the newer version, or set another `results`"
        )
