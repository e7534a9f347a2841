"""Where strata could pay if not on average: the worst domain, calibration by domain, texts that were cut.

Every figure is of one unit; arms are compared seed by seed. It knows units' metrics, and no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

import numpy as np

from trainer_job.tables import markdown

# Figure → heading, and whether more is better.
PLACES = {
    "worst_domain": "macro-F1, worst domain ↑",
    "calibration": "ECE, mean of the domains ↓",
    "cut": "accuracy, texts that were cut ↑",
    "uncut": "accuracy, the others ↑",
}


def where(unit: Mapping[str, Any], right: np.ndarray, cut: np.ndarray) -> dict[str, Any]:
    """The figures of one unit; None where no text is of that kind.

    Args:
        unit: its record, with `test` of these rows.
        right: whether each row was classified rightly, (rows,).
        cut: whether each row fills the longest length, (rows,).
    """
    domains = unit["test"]["per_domain"].values()
    return {
        "variant": unit["variant"],
        "seed": unit["seed"],
        "accuracy": unit["test"]["accuracy"],
        "macro_f1": unit["test"]["macro_f1"],
        "worst_domain": unit["test"]["worst_domain"]["macro_f1"],
        "calibration": fmean(domain["ece"] for domain in domains),
        "cut": float(right[cut].mean()) if cut.any() else None,
        "uncut": float(right[~cut].mean()) if not cut.all() else None,
    }


def where_table(curve: Mapping[int, Mapping[str, Any]]) -> str:
    """Each arm's differences to `none`, mean ± standard error over the seeds that both have."""
    body = []
    for rows, record in sorted(curve.items()):
        plain = {entry["seed"]: entry for entry in record["where"] if entry["variant"] == "none"}
        for name in record["variants"]:
            mine = [entry for entry in record["where"] if entry["variant"] == name and entry["seed"] in plain]
            if name == "none":
                cells = [_mean([entry[place] for entry in mine]) for place in PLACES]
            else:
                cells = [_difference(mine, plain, place) for place in PLACES]
            body.append([f"{rows:,}", name, *cells])
    note = "`none` itself, and the others' differences to it, ± standard error over seeds."
    table = markdown(["rows", "arm", *PLACES.values()], body)
    return f"### Where strata could pay\n\n{note}\n\n{table}"


def _mean(found: list[float | None]) -> str:
    values = [value for value in found if value is not None]
    return f"{fmean(values):.3f}" if values else "–"


def _difference(mine: list[dict[str, Any]], plain: Mapping[int, dict[str, Any]], place: str) -> str:
    values = [
        entry[place] - plain[entry["seed"]][place]
        for entry in mine
        if entry[place] is not None and plain[entry["seed"]][place] is not None
    ]
    if not values:
        return "–"
    spread = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{fmean(values):+.3f}{spread}"
