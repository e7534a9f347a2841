"""The dashboards as pictures without a Grafana: every panel's queries, asked of a live Prometheus and drawn.

It shows what Grafana would be sent, in the same order and with the same titles; colours and layout are
matplotlib's.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8s.checks import dashboards, live, queries

SPAN = 60  # seconds shown
UNITS = {"s": "seconds", "reqps": "a second", "percentunit": "share", "bytes": "bytes"}


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """A legend as Grafana fills it in."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found.group(1), ""), pattern).strip() or "value"


def series(system: live.System, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers for the last `SPAN` seconds, a point a second."""
    now = time.time()
    asked = {"query": queries.filled(expression), "start": now - SPAN, "end": now, "step": 1}
    path = "/api/v1/query_range?" + urllib.parse.urlencode(asked)
    found: list[dict[str, Any]] = json.loads(system.page(system.prometheus, path))["data"]["result"]
    return found


def draw_panel(axes: Any, system: live.System, panel: dashboards.Panel) -> None:
    """One panel: a line a series, time in seconds before now."""
    lines = 0
    for expression, pattern in panel.queries:
        for found in series(system, expression):
            points = [(float(t), float(v)) for t, v in found["values"] if math.isfinite(float(v))]
            if points:
                last = time.time()
                axes.plot(
                    [t - last for t, _ in points],
                    [v for _, v in points],
                    label=legend(pattern, found["metric"])[:28],
                    linewidth=1.2,
                )
                lines += 1
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_ylabel(UNITS.get(panel.unit, ""), fontsize=7)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6)
    if 0 < lines <= 8:
        axes.legend(fontsize=5, loc="upper left", framealpha=0.6)


def draw(system: live.System, folder: Path) -> list[Path]:
    """One PNG a dashboard; their paths."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, dashboard in dashboards.DASHBOARDS.items():
        rows = math.ceil(len(dashboard.panels) / dashboards.COLUMNS)
        figure = Figure(figsize=(4.2 * dashboards.COLUMNS, 2.2 * rows), layout="constrained")
        axes = list(figure.subplots(rows, dashboards.COLUMNS).flat)
        for place, panel in zip(axes, dashboard.panels, strict=False):
            draw_panel(place, system, panel)
        for place in axes[len(dashboard.panels) :]:
            place.set_axis_off()
        figure.suptitle(dashboard.title, fontsize=11)
        path = folder / f"dashboard-{Path(name).stem}.png"
        figure.savefig(path, dpi=80)
        written.append(path)
    return written
