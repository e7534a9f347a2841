"""The figures of a study's sweeps without the sweeps: what its tables and plots are written from.

A study takes longer than one machine may be had for, and its folders hold gigabytes. So each size of its
curve can be kept as the records of the other benchmarks are, beside them, and a later run of other sizes, or
on another machine, writes its tables and its curve with both. Predictions are not kept: a record can be read
and drawn again, its intervals cannot be resampled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import write_record

# What decides the figures, of a sweep's configuration; where its files lay says nothing elsewhere.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "model": ("backbone", "family", "max_length", "attention_dropout"),
    "training": (
        "epochs", "batch_size", "learning_rate", "layer_decay", "warmup", "frozen_blocks", "label_smoothing",
        "weight_average", "prior_correction",
    ),
    "data": ("seed", "train_samples", "validation_samples", "test_samples", "leak_levels", "label_shares"),
    "hardware": ("precision",),
}  # fmt: skip


def keep(rows: int, record: Mapping[str, Any], out: Path) -> Path:
    """Write the figures of `record`, a results.json of `rows` training rows, into `out`; returns the path."""
    rival = (record["baselines"]["tfidf_logreg"] or {}).get("test")
    return write_record(
        "study",
        {
            "rows": rows,
            "config": _settings(record["config"]),
            "variants": {name: _arm(entry) for name, entry in record["variants"].items()},
            "comparisons": [entry for entry in record["comparisons"] if entry["split"] == "test"],
            "baselines": {"tfidf_logreg": rival and {"test": {"macro_f1": rival["macro_f1"]}}},
            "verdict": record["verdict"],
            "units": [_unit(unit) for unit in record["units"] if unit["status"] == "complete"],
            # of whole test splits, where the units themselves may have seen a sample of them
            **({"where": record["where"]} if "where" in record else {}),
        },
        out=out,
        name=f"rows-{rows}",
    )


def read_kept(paths: Iterable[Path]) -> dict[int, dict[str, Any]]:
    """The records by their number of rows. Raises SystemExit for a file that is no record of a study."""
    found: dict[int, dict[str, Any]] = {}
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found[int(record["rows"])] = record
            _ = record["variants"], record["comparisons"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise SystemExit(f"--kept {path}: no record of `write --keep` ({reason})") from error
    return found


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {part: {name: config[part][name] for name in names} for part, names in SETTINGS.items()}
    backbone = Path(found["model"]["backbone"])
    found["model"]["backbone"] = backbone.name if backbone.is_absolute() else str(backbone)
    return found


def _arm(entry: Mapping[str, Any]) -> dict[str, Any]:
    test = {"n": entry["test"]["n"]} | {name: entry["test"][name] for name in ("accuracy", "macro_f1", "ece")}
    domains = {name: {"macro_f1": found["macro_f1"]} for name, found in entry["per_domain"].items()}
    return {"seeds": entry["seeds"], "test": test, "per_domain": domains}


def _unit(unit: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"variant": unit["variant"], "seed": unit["seed"], "seconds": unit["seconds"]}
    for split in ("validation", "test"):
        told[split] = {name: unit[split][name] for name in ("accuracy", "macro_f1")}
    return told
