"""results.json: the whole sweep in one file, rebuilt from the units' own records after each of them.

It holds no state of its own: deleting it loses nothing that `report` cannot rebuild. Paths inside are
relative to the folder that holds it. It does not know how units are trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from trainer_job.config import RunConfig
from trainer_job.errors import JobError
from trainer_job.files import plain, read_json, write_json
from trainer_job.launch import Devices
from trainer_job.predictions import read_predictions
from trainer_job.provenance import SCHEMA_VERSION, environment, run_entry
from trainer_job.selection import BASELINE, Predictions, best_seed, compare, select, standard_error, verdict
from trainer_job.units import (
    Layout,
    config_hash,
    control_of,
    finished_records,
    is_complete,
    planned_units,
    read_status,
)

SCHEMA = Path(__file__).parent / "schemas" / "results.schema.json"
_UNIT_KEYS = [
    "variant",
    "control",
    "seed",
    "status",
    "steps",
    "planned_steps",
    "epochs",
    "best_step",
    "resumed_from_step",
    "seconds",
    "validation",
    "test",
    "test_given_domain",
    "calibration",
    "reliability",
    "strata",
    "held_out",
    "prior_correction",
    "throughput",
    "mfu",
    "parameters",
    "flops_per_token",
    "peak_memory_bytes",
    "processes",
    "device",
    "precision",
    "micro_batch_size",
    "accumulation_steps",
    "out_of_memory",
    "energy_joules",
    "backbone",
    "weights_sha256",
    "identity",
    "curves",
    "path",
]


def load_schema() -> dict[str, Any]:
    """The JSON Schema of results.json, as the package ships it."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def validate(record: Mapping[str, Any]) -> None:
    """Check a record against the schema. Raises JobError naming the place: a fault of the job itself."""
    import jsonschema

    problems = list(jsonschema.Draft202012Validator(load_schema()).iter_errors(record))
    if problems:
        place = "/".join(str(part) for part in problems[0].absolute_path) or "(top)"
        raise JobError(
            f"results.json: {place}: {problems[0].message[:200]}; the schema is law: report this fault"
        )


def build(
    config: RunConfig,
    layout: Layout,
    *,
    status: str,
    command: Sequence[str],
    devices: Devices,
    samples: int = 2000,
    records: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Assemble the record from what lies on disk. `samples` is the number of bootstrap resamples; `records`
    take the place of the units' own.
    """
    if records is None:
        records = finished_records(layout, config_digest=config_hash(config))
    data = read_json(layout.state / "data.json") or {}
    kept = read_json(layout.state / "baselines.json") or {}
    baselines = {name: kept.get(name) for name in ("majority", "tfidf_logreg")}
    splits = {split: load_predictions(layout, records, split) for split in ("validation", "test")}
    comparisons = [
        entry for split, found in splits.items() for entry in compare(split, found, samples=samples)
    ]
    variants = summarise(config, records, splits, samples=samples)
    selected = _promoted(layout, records) or select(records, comparisons)
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "run": run_entry(layout, status=status, command=command, devices=devices),
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "environment": environment(),
        "data": {
            "fingerprint": data.get("fingerprint"),
            "labels": data.get("labels", list(config.data.labels)),
            "rows": data.get("rows", {}),
            "tokens": data.get("tokens", {}),
            "domains": data.get("domains", {}),
            "leaks": data.get("leaks", {}),
            "held_out": data.get("held_out"),
        },
        "units": unit_entries(config, layout, records),
        "variants": variants,
        "baselines": baselines,
        "comparisons": comparisons,
        "selected": selected,
        "verdict": verdict(selected, comparisons, variants, baselines),
    }


def write(layout: Layout, record: Mapping[str, Any]) -> dict[str, Any]:
    """Validate, then replace results.json. Returns what was written."""
    value: dict[str, Any] = plain(record)
    validate(value)
    write_json(layout.record, value)
    return value


def load_predictions(layout: Layout, records: Sequence[Mapping[str, Any]], split: str) -> Predictions:
    """Predicted classes of every finished unit of a split, by variant, seeds stacked, and which these are."""
    labels = np.zeros(0, dtype=np.int64)
    found: dict[str, list[np.ndarray]] = {}
    seeds: dict[str, list[int]] = {}
    for record in records:
        rows = read_predictions(layout.results / record["path"] / "predictions.parquet", split)
        labels = rows["label"]
        found.setdefault(record["variant"], []).append(rows["prediction"])
        seeds.setdefault(record["variant"], []).append(int(record["seed"]))
    return Predictions(labels, {name: np.stack(runs) for name, runs in found.items()}, seeds)


def unit_entries(
    config: RunConfig, layout: Layout, records: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every unit of the plan and every finished one, each with what is known of it."""
    done = {(record["variant"], record["seed"]): record for record in records}
    entries = []
    for unit in planned_units(config):
        record = done.pop((unit.variant, unit.seed), None)
        if record is not None:
            entries.append({name: record.get(name) for name in _UNIT_KEYS})
            continue
        status = read_status(layout.unit(unit))
        state = "pending" if status["state"] == "complete" else status["state"]
        entry = {"variant": unit.variant, "control": unit.control, "seed": unit.seed, "status": state}
        entries.append({**entry, "error": status.get("error"), "path": unit.path})
    entries += [{name: record.get(name) for name in _UNIT_KEYS} for record in done.values()]
    return entries


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds; the deviation is None for a single one."""
    known = [value for value in values if value is not None]
    return {
        "mean": fmean(known) if known else None,
        "sd": stdev(known) if len(known) > 1 else None,
    }


def summarise(
    config: RunConfig,
    records: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Predictions],
    *,
    samples: int,
) -> dict[str, Any]:
    """One entry for each variant with a finished unit, in the configuration's order."""
    order = [*config.variants, *sorted({record["variant"] for record in records} - set(config.variants))]
    by_variant = {name: [record for record in records if record["variant"] == name] for name in order}
    plain_size = next((record["parameters"] for record in by_variant.get(BASELINE, [])), None)
    entries = {}
    for name, items in by_variant.items():
        if not items:
            continue
        entry: dict[str, Any] = {
            "seeds": [record["seed"] for record in items],
            "best_seed": best_seed(items)["seed"],
        }
        for split, found in splits.items():
            error = standard_error(found.by_variant[name], found.labels, samples=samples)
            entry[split] = {
                "n": len(found.labels),
                "accuracy": {
                    **spread([record[split]["accuracy"] for record in items]),
                    "se": items[0][split]["accuracy_se"],
                },
                "macro_f1": {**spread([record[split]["macro_f1"] for record in items]), "se": error},
            }
            for metric in ("macro_recall", "brier", "ece", "domain_accuracy"):
                entry[split][metric] = spread([record[split][metric] for record in items])
        entry["per_domain"] = per_domain(items)
        entry["held_out"] = held_out(items)
        size = items[0]["parameters"]
        entry |= {
            "parameters": size,
            "added_percent": 100 * (size - plain_size) / plain_size if plain_size else None,
            "flops_per_token": items[0]["flops_per_token"],
            "tokens_per_second": spread([record["throughput"]["tokens_per_second"] for record in items])[
                "mean"
            ],
            "train_seconds": spread([record["seconds"]["train"] for record in items])["mean"],
            "energy_joules": spread([record.get("energy_joules") for record in items])["mean"],
            "path": name if control_of(name) is None else f"{best_seed(items)['path']}/bundle",
        }
        entries[name] = entry
    return entries


def per_domain(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Test figures for each domain: mean and deviation over seeds."""
    return {
        domain: {
            "n": first["n"],
            **{
                metric: spread([record["test"]["per_domain"][domain][metric] for record in items])
                for metric in ("accuracy", "macro_f1", "macro_recall", "ece", "ece_raw", "neutral_share")
            },
            "accuracy_se": first["accuracy_se"],
        }
        for domain, first in items[0]["test"]["per_domain"].items()
    }


def held_out(items: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Figures on the domain that was only tested: mean and deviation over seeds; None without one."""
    first = items[0].get("held_out")
    if first is None:
        return None
    metrics = ("accuracy", "macro_f1", "ece", "neutral_share")
    return {
        "domain": first["domain"],
        "n": first["n"],
        **{metric: spread([record["held_out"][metric] for record in items]) for metric in metrics},
        "accuracy_se": first["accuracy_se"],
        "auroc": {
            score: spread([record["held_out"]["auroc"][score] for record in items])
            for score in first["auroc"]
        },
    }


def settled_status(config: RunConfig, layout: Layout, *, earlier: str | None) -> str:
    """What a sweep that nobody runs is: complete, partial when units failed, else what it was."""
    units, digest = [layout.unit(unit) for unit in planned_units(config)], config_hash(config)
    if all(is_complete(folder, config_digest=digest) for folder in units):
        return "complete"
    if any(read_status(folder)["state"] == "failed" for folder in units):
        return "partial"
    return earlier if earlier in ("running", "preempted") else "partial"


def _promoted(layout: Layout, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What `promote` decided, as long as that unit stands."""
    chosen = read_json(layout.state / "promoted.json")
    if chosen and any((r["variant"], r["seed"]) == (chosen["variant"], chosen["seed"]) for r in records):
        return chosen
    return None
