"""Plots of an inspection as PNG bytes. Input is its JSON record; nothing is drawn at import."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def occupancy(record: Record, figure: Any) -> None:
    """Share of each stratum, with the line of equal use and the floor of one percent."""
    shares = record["strata"]["occupancy"]
    axes = _axes(figure)
    axes.bar(range(len(shares)), shares, color="#0072b2")
    axes.axhline(1 / len(shares), color="#888888", linestyle="--", linewidth=1)
    axes.axhline(0.01, color="#b00000", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(shares)))
    axes.set_xlabel("stratum")
    axes.set_ylabel("mean posterior")


def dimension(record: Record, figure: Any) -> None:
    """Both estimates with their intervals against the rank that the gate assigned."""
    axes = _axes(figure)
    entries = [entry for entry in record["dimension"] if entry["stratum"] is not None]
    for name, colour, shift in (("two_nn", "#d55e00", -0.12), ("participation_ratio", "#009e73", 0.12)):
        known = [entry for entry in entries if entry[name] is not None]
        values = [entry[name]["value"] for entry in known]
        low = [max(0.0, entry[name]["value"] - entry[name]["low"]) for entry in known]
        high = [max(0.0, entry[name]["high"] - entry[name]["value"]) for entry in known]
        places = [entry["stratum"] + shift for entry in known]
        axes.errorbar(places, values, yerr=[low, high], fmt="o", color=colour, capsize=3, label=name)
    ranks = [entry["rank"] for entry in entries]
    axes.step(range(len(ranks)), ranks, where="mid", color="#888888", label="assigned rank")
    axes.set_xlabel("stratum")
    axes.set_ylabel("dimensions")
    axes.legend(fontsize=8)


def volume(record: Record, figure: Any) -> None:
    """Share of tokens that reject manifold and fibre bundle, by layer, here and before training."""
    axes = _axes(figure)
    for key, style in (("volume", "-"), ("volume_before", "--")):
        if record.get(key) is None:
            continue
        word = "" if key == "volume" else ", before training"
        for name, colour in (("manifold", "#0072b2"), ("bundle", "#cc79a7")):
            layers = record[key]["layers"]
            axes.plot(
                [entry["layer"] for entry in layers],
                [entry[f"rejects_{name}"] for entry in layers],
                style,
                marker="o",
                color=colour,
                label=f"{name}{word}",
            )
    axes.axhline(record["volume"]["settings"]["false_alarms"], color="#888888", linestyle=":", linewidth=1)
    axes.set_ylim(-0.02, 1)
    axes.set_xlabel("layer (0: embeddings)")
    axes.set_ylabel("share that rejects")
    axes.legend(fontsize=8)


def projection(record: Record, figure: Any) -> None:
    """The plane of largest variance three times: by stratum, domain and label."""
    from matplotlib import colormaps

    found = record["projection"]
    ways: list[tuple[str, Sequence[int], Sequence[str]]] = []
    if found["stratum"] is not None:
        ways.append(
            ("stratum", found["stratum"], [str(k) for k in range(len(record["strata"]["occupancy"]))])
        )
    ways += [("domain", found["domain"], record["domains"]), ("label", found["label"], record["labels"])]
    figure.set_size_inches(4.2 * len(ways), 4.2)
    for number, (title, ids, names) in enumerate(ways, start=1):
        axes = figure.add_subplot(1, len(ways), number)
        for place, name in enumerate(names):
            chosen = [point for point, owner in zip(found["points"], ids, strict=True) if owner == place]
            colour = colormaps["tab10"](place % 10)
            axes.scatter([p[0] for p in chosen], [p[1] for p in chosen], s=3, color=colour, label=name)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=7, markerscale=3)


def _axes(figure: Any) -> Any:
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


PLOTS: dict[str, tuple[Callable[[Record, Any], None], str, str]] = {
    "occupancy": (occupancy, "strata", "Mean share of each stratum; dashed: equal use; dotted: one percent"),
    "dimension": (
        dimension,
        "dimension",
        "Two estimates of each stratum's dimension, and its rank",
    ),
    "volume": (volume, "volume", "Share of tokens that reject manifold and fibre bundle"),
    "projection": (
        projection,
        "projection",
        "Tokens in the plane of largest variance",
    ),
}


def draw(record: Record) -> dict[str, tuple[str, str]]:
    """(base64 PNG, description) of each plot whose figures are there."""
    from matplotlib.figure import Figure

    images = {}
    for name, (plot, needs, alt) in PLOTS.items():
        if record.get(needs) is None or (name == "dimension" and record["strata"] is None):
            continue
        figure = Figure(figsize=(6.4, 3.8), dpi=110, layout="constrained")
        plot(record, figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        images[name] = (base64.b64encode(stream.getvalue()).decode(), alt)
    return images
