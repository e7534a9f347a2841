"""Every figure of the sweep again, from the units' kept predictions, and where it differs from the records.

It trusts predictions.parquet and the data's names, and nothing that was computed from them. It knows no
Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer_job.config import RunConfig
from trainer_job.errors import DataError
from trainer_job.evaluation import figures_of
from trainer_job.files import plain, read_json
from trainer_job.predictions import read_arrays
from trainer_job.units import Layout, config_hash, finished_records

TOLERANCE = 1e-6
NEWER = ("domain_inference", "left_out")  # figures that records of before have no name for
DECISION = ("variant", "seed", "path", "by")
FIGURES = ("validation", "test", "test_given_domain", "calibration", "reliability", "strata", "held_out")


@dataclass(frozen=True)
class KeptNames:
    """Names as the sweep's notes have them; see `evaluation.Names`."""

    labels: tuple[str, ...]
    domains: tuple[str, ...]
    domain_labels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Recomputed:
    """The finished units' records with figures computed again, and what differs from those on disk:
    `UNIT: PLACE: recorded …, recomputed …` for each figure that does by more than 1e-6.
    """

    records: list[dict[str, Any]]
    differences: list[str]


def recomputed(layout: Layout, config: RunConfig) -> Recomputed:
    """All finished units' figures, from predictions alone.

    Raises:
        DataError: a unit's predictions are missing or unreadable.
    """
    data = read_json(layout.state / "data.json") or {}
    labels, domains = tuple(data["labels"]), tuple(data["domain_names"])
    allowed = {name: set(config.data.domains[name].labels) for name in domains}
    names = KeptNames(
        labels,
        domains,
        tuple(tuple(i for i, label in enumerate(labels) if label in allowed[name]) for name in domains),
    )
    records, found = [], []
    for record in finished_records(layout, config_digest=config_hash(config)):
        path = layout.results / record["path"] / "predictions.parquet"
        try:
            splits = read_arrays(path, labels=labels)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: not readable ({' '.join(str(error).split())[:120]}); restore it, or train again"
            ) from error
        score = record["calibration"]["out_of_domain"]["score"]
        figures = plain(figures_of(splits, names, held_out=data.get("held_out"), score=score))
        # By training rows, whose predictions are not kept.
        bound = record["calibration"]["out_of_domain"]
        figures["calibration"]["out_of_domain"]["left_out"] = bound.get("left_out")
        recorded = {name: record.get(name) for name in FIGURES}
        unit = f"{record['variant']}:{record['seed']}"
        found += [f"{unit}: {text}" for text in differences(recorded, figures)]
        records.append({**record, **figures})
    return Recomputed(records, found)


def summary_differences(earlier: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    """Where what an earlier results.json says of the sweep as a whole differs from one computed again.

    Variants, comparisons, baselines (whose predictions are not kept: from the sweep's notes) and what is to
    be served. A record of a running sweep may lack the last units, so that its summaries are of fewer; no
    other may. Nothing is said of a record that is not there.
    """
    had, has = (_finished(record) for record in (earlier, computed))
    if not earlier or (had != has and earlier.get("status") == "running"):
        return []
    if had != has:
        return [f"units: recorded {_short(sorted(had))}, finished {_short(sorted(has))}"]
    one, other = (plain(_summaries(record)) for record in (earlier, computed))
    return list(differences(one, other))


def _finished(record: Mapping[str, Any]) -> set[str]:
    units = [unit for unit in record.get("units", []) if unit["status"] == "complete"]
    return {f"{unit['variant']}:{unit['seed']}" for unit in units}


def _summaries(record: Mapping[str, Any]) -> dict[str, Any]:
    entries = {f"{item['a']} - {item['b']} on {item['split']}": item for item in record["comparisons"]}
    selected = record.get("selected") or {}
    decided = {name: selected.get(name) for name in DECISION}  # the words beside it may change with versions
    return {
        "variants": record["variants"],
        "baselines": record["baselines"],
        "comparisons": entries,
        "selected": decided,
    }


def differences(recorded: Any, computed: Any, place: str = "") -> Iterator[str]:
    """Where two records of plain values differ; numbers may differ by `TOLERANCE`."""
    if isinstance(recorded, Mapping) and isinstance(computed, Mapping):
        older = {name for name in NEWER if name not in recorded}
        for name in sorted((recorded.keys() | computed.keys()) - older):
            yield from differences(recorded.get(name), computed.get(name), f"{place}/{name}".lstrip("/"))
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        for number, (one, other) in enumerate(zip(recorded, computed, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif not _equal(recorded, computed):
        yield f"{place}: recorded {_short(recorded)}, recomputed {_short(computed)}"


def _equal(one: Any, other: Any) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
