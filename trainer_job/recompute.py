"""Every figure of every finished unit again, from its kept predictions, and where it differs from the record.

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
FIGURES = ("validation", "test", "test_given_domain", "calibration", "reliability", "strata", "held_out")


@dataclass(frozen=True)
class KeptNames:
    """Names as the sweep's notes have them; see `evaluation.Names`."""

    labels: tuple[str, ...]
    domains: tuple[str, ...]
    domain_labels: tuple[tuple[int, ...], ...]


def recomputed(layout: Layout, config: RunConfig) -> list[str]:
    """`UNIT: PLACE: recorded … recomputed …` for each figure that differs by more than 1e-6.

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
    found = []
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
    return found


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
