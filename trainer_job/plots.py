"""Plots of a sweep as PNG files: quality with error bars, domains, learning curves, reliability.

Input is a results.json record. It does not know the report that shows them; nothing is drawn at import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Record = Mapping[str, Any]
COLOURS = {
    "none": "#4d4d4d",
    "attention": "#0072b2",
    "routing": "#d55e00",
    "layers": "#009e73",
    "moe": "#cc79a7",
}
DPI = 110


def colour(variant: str) -> str:
    """The variant's colour in every plot; chosen to be told apart by colour-blind readers."""
    return COLOURS.get(variant.partition(":")[0], "#999999")


def _axes(figure: Any) -> Any:
    """One pair of axes without a frame."""
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def quality(record: Record, figure: Any) -> None:
    """Pooled macro-F1 on test and validation with error bars, and TF-IDF as a line."""
    axes = _axes(figure)
    names = list(record["variants"])
    for place, name in enumerate(names):
        for shift, split, alpha in ((-0.19, "validation", 0.45), (0.19, "test", 1.0)):
            entry = record["variants"][name][split]["macro_f1"]
            error = entry["sd"] if entry["sd"] is not None else entry["se"]
            axes.bar(
                place + shift,
                entry["mean"],
                width=0.36,
                color=colour(name),
                alpha=alpha,
                yerr=error,
                capsize=3,
                ecolor="#222222",
            )
    rival = (record["baselines"]["tfidf_logreg"] or {}).get("test")
    if rival:
        axes.axhline(rival["macro_f1"], color="#b00000", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"TF-IDF + LR {rival['macro_f1']:.3f}",
            (1.0, rival["macro_f1"]),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color="#b00000",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )
    axes.set_xticks(range(len(names)), names)
    lowest = min(
        [
            record["variants"][name][split]["macro_f1"]["mean"]
            for name in names
            for split in ("validation", "test")
        ]
        + ([rival["macro_f1"]] if rival else [])
    )
    axes.set_ylim(max(0.0, lowest - 0.1), None)
    axes.set_ylabel("macro-F1, pooled")
    axes.set_title("Quality: validation (pale) and test, ± one s.e. or s.d. over seeds")


def domains(record: Record, figure: Any) -> None:
    """Macro-F1 on test for each domain and variant."""
    axes = _axes(figure)
    names = list(record["variants"])
    places = list(next(iter(record["variants"].values()))["per_domain"])
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        values = [record["variants"][name]["per_domain"][domain] for domain in places]
        axes.bar(
            [place + (number - (len(names) - 1) / 2) * width for place in range(len(places))],
            [value["macro_f1"]["mean"] for value in values],
            width=width * 0.92,
            color=colour(name),
            label=name,
            yerr=[value["macro_f1"]["sd"] or value["accuracy_se"] or 0.0 for value in values],
            capsize=2,
            ecolor="#222222",
            error_kw={"linewidth": 0.8},
        )
    axes.set_xticks(range(len(places)), places)
    axes.set_ylim(0, 1)
    axes.set_ylabel("macro-F1 over the domain's labels")
    axes.set_title("Domains (test)")
    figure.legend(ncols=len(names), fontsize=8, loc="outside lower center")


def learning(record: Record, figure: Any) -> None:
    """Left: training loss by step, all its terms, logging interval means. Right: validation macro-F1.

    Means over seeds, with bars of one s.d. where there are several.
    """
    panels = figure.subplots(1, 2)
    done = [unit for unit in record["units"] if unit["status"] == "complete"]
    curves = (
        ("train", "loss", "Training loss, all terms"),
        ("validation", "macro_f1", "Validation macro-F1"),
    )
    for axes, (curve, metric, title) in zip(panels, curves, strict=True):
        for name in dict.fromkeys(unit["variant"] for unit in done):
            own = [unit["curves"][curve] for unit in done if unit["variant"] == name]
            steps, means, deviations = over_seeds(own, metric)
            axes.errorbar(
                steps,
                means,
                yerr=deviations,
                label=name,
                color=colour(name),
                linewidth=1.2,
                elinewidth=0.8,
                capsize=2,
                marker="o" if curve == "validation" else None,
                markersize=4,
            )
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("optimizer step")
        axes.set_xlim(0, None)
        axes.set_title(title)
    panels[0].legend(fontsize=8)
    figure.suptitle("Learning, mean over seeds ± s.d.")


def over_seeds(
    curves: Sequence[Sequence[Mapping[str, Any]]], metric: str
) -> tuple[list[int], list[float], list[float] | None]:
    """Steps, means and standard deviations of the points of several seeds; a step that one seed alone has
    reached has a deviation of 0. None for the deviations of a single seed.
    """
    points: dict[int, list[float]] = {}
    for curve in curves:
        for point in curve:
            if point[metric] is not None:
                points.setdefault(point["step"], []).append(point[metric])
    steps = sorted(points)
    deviations = [stdev(points[step]) if len(points[step]) > 1 else 0.0 for step in steps]
    return steps, [fmean(points[step]) for step in steps], deviations if len(curves) > 1 else None


def reliability(record: Record, figure: Any) -> None:
    """Accuracy by confidence on test, after temperature scaling; the diagonal is perfect."""
    axes = _axes(figure)
    axes.plot([0.3, 1], [0.3, 1], color="#bbbbbb", linestyle="--", linewidth=1)
    labelled: set[str] = set()
    for unit in record["units"]:
        if unit["status"] != "complete":
            continue
        name = unit["variant"]
        bins = [entry for entry in unit["reliability"] if entry["n"] >= 10]
        ece = unit["test"]["ece"]
        label = None if name in labelled else f"{name} (ECE {ece:.3f})"
        labelled.add(name)
        axes.plot(
            [entry["confidence"] for entry in bins],
            [entry["accuracy"] for entry in bins],
            marker="o",
            markersize=4,
            color=colour(name),
            label=label,
        )
    axes.set_xlabel("confidence after temperature scaling")
    axes.set_ylabel("share right")
    axes.set_title("Reliability (test; bins of at least 10 rows)")
    axes.legend(fontsize=8)


def pareto(record: Record, figure: Any) -> None:
    """Quality over cost: FLOPs of a token when serving, minutes of training; the line is the frontier."""
    panels = figure.subplots(1, 2, sharey=True)
    variants = record["variants"]
    costs = (
        ("flops_per_token", 1e-6, "million FLOPs per token, serving"),
        ("train_seconds", 1 / 60, "minutes of training, mean over seeds"),
    )
    for axes, (key, scale, title) in zip(panels, costs, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(title)
        points = [
            (entry[key] * scale, entry["test"]["macro_f1"], name)
            for name, entry in variants.items()
            if entry.get(key) is not None
        ]
        for cost, score, name in points:
            error = score["sd"] if score["sd"] is not None else score["se"]
            axes.errorbar(
                cost, score["mean"], yerr=error, color=colour(name), marker=_marker(name), capsize=3
            )
            axes.annotate(name, (cost, score["mean"]), xytext=(5, 5), textcoords="offset points", fontsize=8)
        best = frontier([(cost, score["mean"]) for cost, score, _ in points])
        axes.plot([cost for cost, _ in best], [score for _, score in best], color="#bbbbbb", zorder=0)
        axes.margins(x=0.15)
    panels[0].set_ylabel("test macro-F1")
    figure.suptitle("Quality and cost, ± s.d. over seeds or one s.e.")


def _marker(name: str) -> str:
    return "x" if ":" in name else "o"


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both cost (less) and score (more), by rising cost."""
    kept: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or score > kept[-1][1]:
            kept.append((cost, score))
    return kept


PLOTS: dict[str, tuple[Callable[[Record, Any], None], str]] = {
    "quality": (
        quality,
        "Pooled macro-F1 of each variant with error bars, and the TF-IDF baseline as a line",
    ),
    "domains": (domains, "Macro-F1 of each variant in each domain"),
    "pareto": (pareto, "Test macro-F1 of each variant over the cost of serving and of training"),
    "learning": (learning, "Training loss and validation macro-F1 by step, means over seeds with error bars"),
    "reliability": (reliability, "Share of right answers by confidence"),
}


def draw(record: Record, folder: Path) -> dict[str, Path]:
    """Write one PNG for each plot into `folder`; returns their paths by name. Needs a finished unit."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, (plot, _) in PLOTS.items():
        figure = Figure(figsize=(8, 4.4), dpi=DPI, layout="constrained")
        plot(record, figure)
        paths[name] = folder / f"{name}.png"
        figure.savefig(paths[name])
    return paths
