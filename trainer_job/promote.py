"""`promote VARIANT[:seed]`: a person decides what is served, and says why; the record keeps both.

It copies the unit's bundle to the variant's folder and rewrites `selected`; it trains nothing.
"""

from __future__ import annotations

from typing import Any

from trainer_job.config import ARMS, RunConfig
from trainer_job.errors import ConfigError
from trainer_job.files import read_json, write_json
from trainer_job.folder import check_folder
from trainer_job.provenance import now
from trainer_job.results import write
from trainer_job.selection import best_seed, verdict
from trainer_job.units import Layout, Unit, config_hash, finished_records


def parse_unit(text: str) -> tuple[str, int | None]:
    """`routing` or `routing:2`. Raises ConfigError for another form, and for a control."""
    variant, separator, seed = text.partition(":")
    if seed and not seed.isdigit() and f"{variant}:{seed.partition(':')[0]}" in ARMS:
        raise ConfigError(
            f"promote {text!r}: a control shows what strata do and is never served; name a variant"
        )
    if not variant or (separator and not seed.isdigit()):
        raise ConfigError(f"promote {text!r}: not of the form VARIANT or VARIANT:SEED, as in routing:0")
    return variant, int(seed) if separator else None


def promote(config: RunConfig, text: str, *, reason: str) -> dict[str, Any]:
    """Make a finished unit the selected one; returns the new record.

    Raises ConfigError when there is no such finished unit or no record yet, ResultsMismatch when the folder
    belongs to another configuration or a later version.
    """
    layout = Layout.of(config)
    record = read_json(layout.record)
    check_folder(layout, config)
    if record is None:
        raise ConfigError(f"{layout.record}: no record of a sweep there; run `stratified-train run` first")
    if not reason.strip():
        raise ConfigError("--reason is empty; say why, it is recorded")
    variant, seed = parse_unit(text)
    finished = finished_records(layout, config_digest=config_hash(config))
    matching = [item for item in finished if item["variant"] == variant and seed in (None, item["seed"])]
    if not matching:
        known = [f"{item['variant']}:{item['seed']}" for item in finished]
        raise ConfigError(f"promote {text!r}: no such finished unit; finished are {known or 'none'}")
    chosen = best_seed(matching)
    unit = Unit(variant, int(chosen["seed"]))
    copy_to_variant(layout, unit)
    selected = {
        "variant": variant,
        "seed": unit.seed,
        "path": variant,
        "rule": "decided by a person with `promote`",
        "reason": reason.strip(),
        "by": "promotion",
        "at": now(),
    }
    write_json(layout.state / "promoted.json", selected)
    words = verdict(selected, record["comparisons"], record["variants"], record["baselines"])
    return write(layout, {**record, "selected": selected, "verdict": words})


def copy_to_variant(layout: Layout, unit: Unit) -> None:
    """Copy a unit's bundle to its variant's folder, where the service looks; manifest last."""
    from stratified_models.bundle import copy_bundle

    copy_bundle(layout.unit(unit) / "bundle", layout.variant(unit.variant))
