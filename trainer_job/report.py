"""report.md and report.html out of a results.json record: tables, plots, the verdict.

The HTML is one file: its plots are inside. Input is the record alone, so a report can be made again at any
time.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from trainer_job import tables
from trainer_job.cards import add_verdict
from trainer_job.files import write_text
from trainer_job.plots import PLOTS, draw

TEMPLATES = Path(__file__).parent / "templates"
Record = Mapping[str, Any]


def write_report(record: Record, folder: Path) -> list[Path]:
    """Write plots/*.png, report.md and report.html into `folder`; returns the two reports' paths.

    The cards of the bundles there learn the verdict too.
    """
    images = draw(record, folder / "plots") if record["variants"] else {}
    context = build_context(record)
    context["images"] = {name: base64.b64encode(path.read_bytes()).decode() for name, path in images.items()}
    written = []
    for name in ("report.md", "report.html"):
        write_text(folder / name, render(name, context))
        written.append(folder / name)
    add_verdict(folder, record)
    return written


def render(name: str, context: Mapping[str, Any]) -> str:
    """One report from its template; HTML is escaped, a missing value is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.j2").render(context)


def build_context(record: Record) -> dict[str, Any]:
    """Everything that the templates show, as text."""
    header, body = tables.comparison(record) if record["variants"] else ([], [])
    done = [unit for unit in record["units"] if unit["status"] == "complete"]
    chosen = (record["selected"] or {}).get("variant")
    return {
        "record": record,
        "header": header,
        "body": body,
        "mark": f"{chosen} *",
        "table": tables.markdown(header, body) if header else "",
        "markdown": tables.markdown,
        "plots": [(name, alt) for name, (_, alt) in PLOTS.items()],
        "comparisons": [_comparison_row(entry) for entry in record["comparisons"]],
        "calibration_header": ["variant", *_domains(record)],
        "calibration_rows": [_calibration_row(name, entry) for name, entry in record["variants"].items()],
        "held_out_header": HELD_OUT_HEADER,
        "held_out_rows": [
            _held_out_row(name, entry["held_out"])
            for name, entry in record["variants"].items()
            if entry.get("held_out")
        ],
        "strata_rows": [_strata_row(unit) for unit in done],
        "inference_rows": [_inference_row(unit) for unit in done if unit["test"].get("domain_inference")],
        "cost_rows": [_cost_row(unit) for unit in done],
        "data_rows": [_data_row(name, entry) for name, entry in record["data"]["domains"].items()],
        "unfinished": [unit for unit in record["units"] if unit["status"] != "complete"],
    }


HELD_OUT_HEADER = ["variant", "rows", "accuracy", "macro-F1", "ECE", "neutral", "AUROC by score"]


def _domains(record: Record) -> list[str]:
    return list(next(iter(record["variants"].values()))["per_domain"]) if record["variants"] else []


def _calibration_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    """ECE on test by domain, before and after temperature scaling, means over seeds."""
    cells = []
    for domain in entry["per_domain"].values():
        before = (domain.get("ece_raw") or {}).get("mean")
        cells.append(f"{tables.figure(before)} → {tables.figure(domain['ece']['mean'])}")
    return [name, *cells]


def _held_out_row(name: str, held: Mapping[str, Any]) -> list[str]:
    areas = ", ".join(f"{score} {tables.figure(area['mean'])}" for score, area in held["auroc"].items())
    accuracy = tables.with_error({**held["accuracy"], "se": held["accuracy_se"]})
    figures = [tables.figure(held[key]["mean"]) for key in ("macro_f1", "ece", "neutral_share")]
    return [name, str(held["n"]), accuracy, *figures, areas]


def _comparison_row(entry: Mapping[str, Any]) -> list[str]:
    low, high = entry["ci95"]
    return [
        f"{entry['a']} − {entry['b']}",
        entry["split"],
        f"{entry['delta']:+.3f}",
        f"{low:+.3f} … {high:+.3f}",
        f"{entry['p']:.3f}",
        f"{entry['p_corrected']:.3f}",
        f"{entry['mcnemar']['p']:.3f}",
        f"{100 * entry['detectable_accuracy_difference']:.1f} points, n = {entry['n']}",
    ]


def _inference_row(unit: Mapping[str, Any]) -> list[str]:
    cells = [f"{unit['variant']}:{unit['seed']}"]
    for split in ("validation", "test"):
        found = unit[split]["domain_inference"]
        mean = fmean(found["by_domain"].values())
        cells += [tables.figure(value) for value in (found["accuracy"], found["accuracy_alike"], mean)]
    alike = unit["test"]["domain_inference"]["alike"]
    return [*cells, ", ".join(" and ".join(pair) for pair in alike) or "–"]


def _strata_row(unit: Mapping[str, Any]) -> list[str]:
    strata, calibration = unit["strata"], unit["calibration"]
    ece = calibration["test"]["ece"]
    information = "–"
    if strata:
        information = " / ".join(
            tables.figure(strata[f"information_with_{name}_nats"]) for name in ("domain", "label")
        )
    return [
        f"{unit['variant']}:{unit['seed']}",
        f"{calibration['temperature']:.2f}",
        f"{ece['before']:.3f} → {ece['after']:.3f}",
        effective(strata),
        information,
        tables.figure(calibration["out_of_domain"]["threshold"], 2),
    ]


def effective(strata: Mapping[str, Any] | None) -> str:
    """Effective number of strata in use, whatever form the diagnostics give it in."""
    if not strata:
        return "–"
    value = strata.get("effective")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {tables.figure(part, 1)}" for name, part in value.items())
    return tables.figure(value, 1)


def _cost_row(unit: Mapping[str, Any]) -> list[str]:
    seconds, throughput = unit["seconds"], unit["throughput"]
    phases = ("train", "evaluate", "save", "predict", "total")
    padding = throughput["padding_share"]
    return [
        f"{unit['variant']}:{unit['seed']}",
        str(unit["steps"]),
        " / ".join(tables.figure(seconds.get(name), 0) for name in phases),
        tables.figure(throughput["tokens_per_second"], 0),
        "–" if padding is None else f"{100 * padding:.0f} %",
        "–" if unit.get("mfu") is None else f"{100 * unit['mfu']:.0f} %",
        f"{unit['flops_per_token'] / 1e6:.1f} M",
        f"{unit['peak_memory_bytes'] / 2**20:.0f} MiB",
        "–" if unit.get("energy_joules") is None else f"{unit['energy_joules'] / 3600:.2f} Wh",
    ]


def _data_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    counts = entry["counts"]
    splits = [
        " + ".join(f"{n} {label[:3]}" for label, n in counts.get(split, {}).items() if n)
        for split in ("train", "validation", "test")
    ]
    return [name, entry["source"], entry.get("licence") or "–", *splits]
