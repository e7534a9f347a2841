"""From rules and dashboards to queries that must return data on a running system, alert or no alert.

It knows PromQL only as text: Grafana's variables are filled in, and an alert's comparisons are made to answer
0 or 1 instead of nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from k8s.checks import dashboards
from k8s.checks.manifests import RULES
from k8s.checks.rendering import OVERLAYS

SCALED = OVERLAYS / "keda" / "scaled-object.yaml"
COMPARISON = re.compile(r"(==|!=|>=|<=|>|<)(?= )")


@dataclass(frozen=True)
class Query:
    """Where an expression stands, and what to ask Prometheus."""

    origin: str
    expression: str


def always_answering(expression: str) -> str:
    """An alert's condition as a value: comparisons give 0 or 1, `absent` asks for what it would miss."""
    return COMPARISON.sub(r"\1 bool", expression).replace("absent(", "(")


def filled(expression: str) -> str:
    """A panel's query as Grafana would send it with "All" chosen."""
    return re.sub(r"\$(instance|job_name)\b", ".*", expression.replace("$__rate_interval", "15s"))


def rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def all_queries() -> list[Query]:
    """Recorded series, alert conditions, every panel's queries, and those that KEDA scales by."""
    found = []
    for rule in rules():
        if "record" in rule:
            found.append(Query(f"recorded {rule['record']}", rule["record"]))
        else:
            found.append(Query(f"alert {rule['alert']}", always_answering(rule["expr"])))
    for name in dashboards.DASHBOARDS:
        model = json.loads((dashboards.FOLDER / name).read_text(encoding="utf-8"))
        for panel in model["panels"]:
            origin = f"{name}, panel {panel['title']!r}"
            found += [Query(origin, filled(target["expr"])) for target in panel["targets"]]
    scaled = yaml.safe_load(SCALED.read_text(encoding="utf-8"))["spec"]["triggers"]
    return found + [Query("KEDA", trigger["metadata"]["query"]) for trigger in scaled]
