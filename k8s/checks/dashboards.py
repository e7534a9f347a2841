"""The two Grafana dashboards, from one short table: `python -m k8s.checks.dashboards` writes their JSON.

A panel is a title, a unit, a sentence that says how to read it, and its queries. It does not know Grafana's
server: the JSON has a data source variable, so that an import asks where to look.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "monitoring" / "dashboards"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
OURS = 'grpc_service=~"stratified[.].*"'
PODS = 'instance=~"$instance"'
JOB = 'job_name=~"$job_name"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are pairs of PromQL and legend."""

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `variable` filters its panels by a label of `metric`."""

    uid: str
    title: str
    variable: str
    metric: str
    panels: tuple[Panel, ...]


def _quantiles(metric: str, by: str, selector: str = "") -> tuple[tuple[str, str], ...]:
    """p50 and p99 of a histogram, by one label."""
    where = ",".join(part for part in (PODS, selector) if part)
    inner = f"sum by (le, {by}) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    legend = f"{{{{{by}}}}}"
    return tuple(
        (f"histogram_quantile({level}, {inner})", f"p{round(level * 100)} {legend}") for level in (0.5, 0.99)
    )


def _rate(metric: str, by: str, selector: str = "") -> str:
    """The rate of a counter, summed by one label."""
    where = ",".join(part for part in (PODS, selector) if part)
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


SERVICE = Dashboard(
    uid="stratified-service",
    title="Stratified Sentiment / Service",
    variable="instance",
    metric="stratified_model_ready",
    panels=(
        Panel("Models ready", "short", "Pods whose model answers, by model.",
              ((f"sum by (model) (stratified_model_ready{{{PODS}}})", "{{model}}"),), "stat"),
        Panel("Calls", "reqps", "Finished calls by status; OK should tower over the rest.",
              ((_rate("grpc_server_handled_total", "grpc_code", OURS) + " > 0", "{{grpc_code}}"),)),
        Panel("Calls in flight", "short", "Started minus finished: grows without end when something hangs.",
              ((f"sum(grpc_server_started_total{{{PODS},{OURS}}})"
                f" - sum(grpc_server_handled_total{{{PODS},{OURS}}})", "in flight"),)),
        Panel("Latency", "s", "Of a whole call, at the server, by method.",
              _quantiles("grpc_server_handling_seconds", "grpc_method", OURS)),
        Panel("Stages", "s", "Where the time of an item goes.",
              _quantiles("stratified_stage_duration_seconds", "stage")),
        Panel("Queue", "short", "Items and tokens that wait for the engine.",
              ((f"sum(stratified_queue_items{{{PODS}}})", "items"),
               (f"sum(stratified_queue_tokens{{{PODS}}})", "tokens"))),
        Panel("Waiting", "s",
              "Age of the oldest item (the autoscaler reads it), and the predicted wait of the next.",
              ((f"max by (model) (stratified_queue_oldest_age_seconds{{{PODS}}})", "oldest {{model}}"),
               (f"max by (model) (stratified_estimated_wait_seconds{{{PODS}}})", "predicted {{model}}"))),
        Panel("Turned away", "reqps", "Calls refused before any work; items dropped; items with an error.",
              ((_rate("stratified_rejected_total", "reason"), "refused {{reason}}"),
               (_rate("stratified_dropped_total", "reason"), "dropped {{reason}}"),
               (_rate("stratified_item_errors_total", "reason"), "error {{reason}}"))),
        Panel("Engine busy", "percentunit",
              "Share of time in which the engine computes; near 1 it is the limit.",
              ((f"avg(rate(stratified_inference_busy_seconds_total{{{PODS}}}[$__rate_interval]))", "busy"),)),
        Panel("Tokens", "short", "Real and padding tokens a second.",
              ((f"sum(rate(stratified_processed_tokens_total{{{PODS}}}[$__rate_interval]))", "real"),
               (f"sum(rate(stratified_padding_tokens_total{{{PODS}}}[$__rate_interval]))", "padding"))),
        Panel("Batches", "short", "Batches a second, by why they held no more.",
              ((_rate("stratified_batches_total", "close_reason"), "{{close_reason}}"),)),
        Panel("Items a batch", "short", "Mean size of a batch.",
              ((f"sum(rate(stratified_batch_items_sum{{{PODS}}}[$__rate_interval]))"
                f" / (sum(rate(stratified_batch_items_count{{{PODS}}}[$__rate_interval])) > 0)", "items"),)),
        Panel("Answers", "short", "Items a second, by label.",
              ((_rate("stratified_items_total", "label"), "{{label}}"),)),
        Panel("Domains", "short", "Items a second, by the domain that was used.",
              ((_rate("stratified_items_total", "domain"), "{{domain}}"),)),
        Panel("Drift and out of domain", "percentunit",
              "Distance of the recent domain mix from training; share of items unlike the training data.",
              ((f"max by (model) (stratified_drift{{{PODS}}})", "drift {{model}}"),
               (f"sum by (model) (rate(stratified_out_of_domain_total{{{PODS}}}[$__rate_interval]))"
                f" / (sum by (model) (rate(stratified_items_total{{{PODS}}}[$__rate_interval])) > 0)",
                "out of domain {{model}}"))),
        Panel("Age of the model", "s", "Time since the bundle that answers was made; an alert at 90 days.",
              ((f"time() - max by (model) (stratified_model_created_timestamp_seconds{{{PODS}}})",
                "{{model}}"),)),
        Panel("Confidence", "percentunit", "Median calibrated score of the best label.",
              (_quantiles("stratified_confidence", "model")[0],)),
        Panel("Event loop", "s", "Delay of the event loop's heartbeat; high when something blocks it.",
              _quantiles("stratified_event_loop_lag_seconds", "instance")),
        Panel("Memory", "bytes", "Resident memory of each pod.",
              ((f"process_resident_memory_bytes{{{PODS}}} and on (instance) stratified_model_ready",
                "{{instance}}"),)),
    ),
)  # fmt: skip


def _of_unit(metric: str) -> str:
    """A figure of the units that are being trained."""
    return f"max by (variant, seed) (stratified_train_{metric})"


def _by(counter: str, label: str) -> str:
    """The rate of a counter of the job, by one label."""
    return f"sum by ({label}) (rate(stratified_train_{counter}[$__rate_interval]))"


UNIT = "{{variant}} {{seed}}"
TRAINING = Dashboard(
    uid="stratified-training",
    title="Stratified Sentiment / Training",
    variable="job_name",
    metric="kube_job_status_active",
    panels=(
        Panel("Running", "short", "Pods of the job that run.",
              ((f"sum by (job_name) (kube_job_status_active{{{JOB}}})", "{{job_name}}"),), "stat"),
        Panel("Units", "short", "Units of the sweep by state.",
              (("max by (state) (stratified_train_units)", "{{state}}"),), "stat"),
        Panel("Finished", "short", "1 once the job is complete, or has failed for good.",
              ((f'sum by (job_name) (kube_job_complete{{{JOB},condition="true"}})', "complete {{job_name}}"),
               (f'sum by (job_name) (kube_job_failed{{{JOB},condition="true"}})', "failed {{job_name}}")),
              "stat"),
        Panel("Progress", "percentunit", "Steps done of those planned, for each unit that is being trained.",
              ((f"{_of_unit('step')} / {_of_unit('planned_steps')}", UNIT),)),
        Panel("Loss", "short", "Training loss; a unit starts high and falls, a restart goes on where it was.",
              ((_of_unit("loss"), UNIT),)),
        Panel("Validation", "percentunit", "Macro-F1 of the last evaluation, over all domains.",
              ((_of_unit("validation_macro_f1"), UNIT),)),
        Panel("Validation by domain", "percentunit", "Macro-F1 of the last evaluation: best unit by domain.",
              (("max by (domain) (stratified_train_validation_domain_macro_f1)", "{{domain}}"),)),
        Panel("Test", "percentunit", "Macro-F1 of finished units; the report says what differs.",
              ((_of_unit("test_macro_f1"), UNIT),)),
        Panel("Learning rate", "sci", "Of the backbone's parameters.",
              ((_of_unit("learning_rate"), UNIT),)),
        Panel("Gradient norm", "short", "Before clipping; spikes come before a loss that is not finite.",
              ((_of_unit("gradient_norm"), UNIT),)),
        Panel("Tokens", "short", "Tokens a second of the first process; padding is wasted work.",
              ((_by("tokens_total", "kind"), "{{kind}}"),)),
        Panel("Time by phase", "percentunit", "Share of time by phase, of the first process.",
              ((_by("phase_seconds_total", "phase"), "{{phase}}"),)),
        Panel("Age of the last step", "s", "Time without a step or an evaluation; an alert at 15 minutes.",
              ((f"time() - {_of_unit('last_step_timestamp_seconds')}", UNIT),)),
        Panel("Age of the checkpoint", "s", "What a crash would cost; an alert at an hour.",
              ((f"time() - {_of_unit('last_checkpoint_timestamp_seconds')}", UNIT),)),
        Panel("Failed pods", "short", "Pods that ended in an error; the job goes on with the next one.",
              ((f"sum by (job_name) (kube_job_status_failed{{{JOB}}})", "{{job_name}}"),)),
        Panel("Running for", "s", "Time since the job started; its deadline is six hours.",
              ((f"time() - max by (job_name) (kube_job_status_start_time{{{JOB}}})", "{{job_name}}"),)),
        Panel("Memory", "bytes", "Working set of the training container; /dev/shm counts.",
              (('sum by (pod) (container_memory_working_set_bytes{container="train"})', "{{pod}}"),)),
        Panel("CPU", "short", "Cores in use by the training container.",
              (("sum by (pod) (rate("
                'container_cpu_usage_seconds_total{container="train"}[$__rate_interval]))', "{{pod}}"),)),
        Panel("Results volume", "percentunit", "Share of the volume that is in use.",
              (('1 - kubelet_volume_stats_available_bytes{persistentvolumeclaim="stratified-results"}'
                ' / kubelet_volume_stats_capacity_bytes{persistentvolumeclaim="stratified-results"}',
                "in use"),)),
    ),
)  # fmt: skip

DASHBOARDS = {"service.json": SERVICE, "training.json": TRAINING}


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    """Grafana's JSON of one panel, placed by its number."""
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {
            "x": number % COLUMNS * WIDTH,
            "y": number // COLUMNS * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    """The data source, and the label that filters the panels."""
    query = f"label_values({dashboard.metric}, {dashboard.variable})"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": dashboard.variable,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": "A"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def render(dashboard: Dashboard) -> str:
    """The JSON that Grafana imports."""
    model = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["stratified-sentiment"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(panel, number) for number, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(model, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes the JSON files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / name).write_text(render(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
