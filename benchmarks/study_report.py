"""Tables and plots of a study, from the records of its sweeps that are complete or partial.

It knows results.json and nothing of how the sweeps were run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.study_where import where_table
from trainer_job.plots import colour
from trainer_job.tables import figure, markdown

Record = dict[str, Any]
# Gains over the baseline that the public experiment claimed, in points of accuracy relative to it (percent).
CLAIMED: dict[int, dict[str, float]] = {
    400: {"attention": 27, "routing": 39, "moe": 36},
    2500: {"attention": 3.8, "routing": 1.0, "layers": 1.4, "moe": 1.7},
}
MARKERS = {"matched": "s", "shuffled": "X", "random_gate": "v", "lexical": "P", "domain_only": "D"}


def write_study(out: Path, docs: Path, *, beside: Mapping[int, Record] | None = None) -> list[Path]:
    """Write study-tables.md and the plots below `docs`; returns their paths.

    `beside` has the records of sizes that `out` lacks, by their number of rows.
    """
    curve = dict(beside or {}) | curve_of(out)
    unseen = {path.name.partition("-")[2]: record for path, record in records(out, "without-*")}
    parts = ["<!-- Written by `python -m benchmarks.study write`; do not edit. -->"]
    kept = out / "baseline.json"
    if kept.is_file():
        parts.append(baseline_table(json.loads(kept.read_text(encoding="utf-8"))))
    parts += [rows_table(rows, record) for rows, record in sorted(curve.items())]
    if curve:
        parts.append(claims_table(curve))
    if curve and all("where" in record for record in curve.values()):
        parts.append(where_table(curve))
    if unseen:
        parts.append(unseen_table(unseen))
    docs.mkdir(parents=True, exist_ok=True)
    written = [docs / "study-tables.md"]
    written[0].write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if curve:
        written.append(draw_curve(curve, docs / "images" / "study-curve.png"))
    return written


def curve_of(out: Path) -> dict[int, Record]:
    """The records of the sweeps below `out`, by their number of training rows."""
    return {int(path.name.partition("-")[2]): record for path, record in records(out, "rows-*")}


def records(out: Path, pattern: str) -> Iterator[tuple[Path, Record]]:
    """Folder and record of each sweep with a finished unit.

    The records of whole test splits if each sweep has one of its present units; points on unlike test rows
    would not be a curve.
    """
    paths = sorted(out.glob(f"{pattern}/results/results.json"))
    found = [(path.parents[1], json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    found = [(folder, record) for folder, record in found if record["variants"]]
    kept = [(folder, _whole(folder)) for folder, _ in found]
    if all(
        whole and whole["units"] == record["units"]
        for (_, whole), (_, record) in zip(kept, found, strict=True)
    ):
        found = kept
    yield from found


def _whole(folder: Path) -> Record:
    path = folder / "whole.json"
    read: Record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return read


def baseline_table(tried: dict[str, Any]) -> str:
    """What was tried to make `none` strong, by validation macro-F1."""
    plain = tried["tried"]["plain"]
    rows = [
        [f"{name} *" if name == tried["chosen"] else name, figure(score), f"{score - plain:+.3f}"]
        for name, score in tried["tried"].items()
    ]
    return "### Baseline, on validation\n\n" + markdown(["setting", "macro-F1", "to plain"], rows)


def rows_table(rows: int, record: Record) -> str:
    """Arms at one number of training rows: test figures, and the difference to `none`."""
    domains = list(next(iter(record["variants"].values()))["per_domain"])
    against = {
        entry["a"]: entry
        for entry in record["comparisons"]
        if entry["split"] == "test" and entry["b"] == "none"
    }
    body = []
    for name, entry in record["variants"].items():
        test, other = entry["test"], against.get(name)
        spread = test["macro_f1"]["sd"]
        body.append(
            [
                name,
                str(len(entry["seeds"])),
                f"{figure(test['accuracy']['mean'])} ± {figure(test['accuracy']['sd'])}",
                f"{figure(test['macro_f1']['mean'])} ± {figure(spread)}",
                "–"
                if other is None
                else f"{other['delta']:+.3f} [{other['ci95'][0]:+.3f}, {other['ci95'][1]:+.3f}]",
                "–" if other is None else figure(other["p_corrected"]),
                *(figure(entry["per_domain"][domain]["macro_f1"]["mean"]) for domain in domains),
                figure(test["ece"]["mean"]),
            ]
        )
    header = ["arm", "seeds", "accuracy", "macro-F1", "Δ to none [95 %]", "p (Holm)", *domains, "ECE"]
    rival = (record["baselines"]["tfidf_logreg"] or {}).get("test")
    note = f"\n\nTF-IDF with logistic regression on the same rows: {rival['macro_f1']:.3f}." if rival else ""
    n = next(iter(record["variants"].values()))["test"]["n"]
    title = f"### {rows:,} training rows, {n:,} test rows"
    return f"{title}\n\n{markdown(header, body)}{note}\n\n> {record['verdict']}"


def claims_table(curve: dict[int, Record]) -> str:
    """Gains in accuracy relative to `none`, in percent, beside those that were published.

    A variant that has other seeds than `none`, in a sweep that is not complete, has no figure: with few rows
    one seed moves more than any variant does.
    """
    body = []
    for rows, record in sorted(curve.items()):
        base = record["variants"].get("none")
        if base is None:
            continue
        plain = base["test"]["accuracy"]["mean"]
        for name, entry in record["variants"].items():
            if ":" in name or name == "none":
                continue
            gain = 100 * (entry["test"]["accuracy"]["mean"] - plain) / plain
            claimed = CLAIMED.get(rows, {}).get(name)
            cells = (gain if entry["seeds"] == base["seeds"] else None, claimed)
            body.append([name, f"{rows:,}", *("–" if cell is None else f"{cell:+.1f} %" for cell in cells)])
    return "### Gains in accuracy, ours and the published ones\n\n" + markdown(
        ["variant", "rows", "here", "published"], body
    )


def unseen_table(unseen: dict[str, Record]) -> str:
    """Each domain left out once: accuracy there, and whether the model notices."""
    body = []
    for domain, record in unseen.items():
        for name, entry in record["variants"].items():
            held = entry["held_out"]
            if held is None:
                continue
            body.append(
                [
                    domain,
                    name,
                    str(len(entry["seeds"])),
                    f"{figure(held['accuracy']['mean'])} ± {figure(held['accuracy_se'])}",
                    figure(held["macro_f1"]["mean"]),
                    *(figure(held["auroc"].get(score, {}).get("mean")) for score in ("energy", "geometry")),
                ]
            )
    header = ["left out", "arm", "seeds", "accuracy ± s.e.", "macro-F1", "AUROC energy", "AUROC geometry"]
    return "### Domains never seen\n\n" + markdown(header, body)


def draw_curve(curve: dict[int, Record], path: Path) -> Path:
    """Test macro-F1 by training rows, or by arm where all have the same; ± the s.d. over seeds, or for one
    seed the standard error.
    """
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Figure(figsize=(8, 4.4), dpi=110, layout="constrained")
    axes = picture.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    names = list(dict.fromkeys(name for record in curve.values() for name in record["variants"]))
    alone = len(curve) == 1
    apart = 0.08 * (max(curve) - min(curve)) / len(names)  # so that no bar hides another
    for number, name in enumerate(names):
        points = [
            (
                number if alone else rows + apart * (number - len(names) / 2),
                record["variants"][name]["test"]["macro_f1"],
            )
            for rows, record in sorted(curve.items())
            if name in record["variants"]
        ]
        axes.errorbar(
            [place for place, _ in points],
            [entry["mean"] for _, entry in points],
            yerr=[entry["sd"] if entry["sd"] is not None else entry["se"] for _, entry in points],
            color=colour(name),
            linestyle="--" if ":" in name else "-",
            marker=MARKERS.get(name.partition(":")[2], "o"),
            capsize=3,
            label=name,
        )
    if alone:
        axes.set_xticks(range(len(names)), [name.replace(":", ":\n") for name in names])
    else:
        axes.legend(fontsize=8, ncols=2)
    axes.set_xlabel(f"{next(iter(curve)):,} training rows" if alone else "training rows; dashed are controls")
    axes.set_ylabel("test macro-F1, ± s.d. over seeds")
    picture.savefig(path)
    return path
