"""Every metric of the service: name, type, labels, help, out of its registry."""

from __future__ import annotations

from docs.generate import tables


def write() -> str:
    """docs/reference/metrics.md."""
    from prometheus_client import CollectorRegistry

    from serving.metrics import Metrics

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    labels = {part._name: part._labelnames for part in vars(metrics).values() if hasattr(part, "_labelnames")}
    rows = []
    for family in sorted(registry.collect(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        told = ", ".join(tables.code(label) for label in labels.get(family.name, ()))
        rows.append((tables.code(name), family.type, told, family.documentation))
    return tables.page(
        "Metrics",
        "What `/metrics` of the service shows, in base units. Label sets are closed: no text, no id "
        "and no name that a "
        "caller chose ever becomes a label. [Operations](../operations.md) has the alerts and dashboards.",
        tables.table(("metric", "type", "labels", "meaning"), rows),
    )
