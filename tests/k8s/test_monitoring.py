"""Rules and dashboards: every metric is one that exists, every alert is tested, explained and linked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import dashboards, drift, manifests, rendering

ROOT = Path(__file__).resolve().parents[2]
FOLDER = rendering.FOLDER / "monitoring"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, panel)
        for name in dashboards.DASHBOARDS
        for panel in json.loads((dashboards.FOLDER / name).read_text(encoding="utf-8"))["panels"]
    ]


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for _, panel in panels() for target in panel["targets"]
    ]


def test_every_query_names_a_series() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions():
        names = set(drift.NAME.findall(expression))
        assert names or any(record in expression for record in recorded), expression


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_what_is_exported() -> None:
    (autoscaler,) = rendering.read(rendering.BASE / "autoscaling.yaml")
    asked = [entry["pods"]["metric"]["name"] for entry in autoscaler["spec"]["metrics"] if "pods" in entry]
    adapted = yaml.safe_load((FOLDER / "adapter-rules.yaml").read_text(encoding="utf-8"))
    assert asked == [entry["name"]["as"] for entry in adapted]
    for entry in adapted:
        series = entry["seriesQuery"].partition("{")[0]
        assert series in drift.exported()
        assert re.fullmatch(entry["name"]["matches"], series)


def test_kedas_queries_name_what_is_exported() -> None:
    (scaled,) = rendering.read(rendering.OVERLAYS / "keda" / "scaled-object.yaml")
    names = [set(drift.NAME.findall(trigger["metadata"]["query"])) for trigger in scaled["spec"]["triggers"]]
    assert all(names)
    assert set.union(*names) <= drift.exported()
    (autoscaler,) = rendering.read(rendering.BASE / "autoscaling.yaml")
    bounds = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    assert bounds == (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"])


def test_every_alert_says_what_how_bad_and_where_to_read_on() -> None:
    docs = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert f"#### {alert['alert']}\n" in docs


def test_every_alert_has_a_test_that_fires_and_one_that_stays_silent() -> None:
    tests = yaml.safe_load((FOLDER / "rules.test.yaml").read_text(encoding="utf-8"))["tests"]
    names = {test["name"] for test in tests}
    for alert in alerts():
        assert {f"{alert['alert']} fires", f"{alert['alert']} stays silent"} <= names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path")
def test_the_rules_pass_their_own_tests() -> None:
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_operators_rules_are_these_rules() -> None:
    (wrapped,) = rendering.read(FOLDER / "prometheus-rule.yaml")
    assert wrapped["kind"] == "PrometheusRule"
    assert [rule for group in wrapped["spec"]["groups"] for rule in group["rules"]] == rules()


def test_the_monitor_finds_the_service_by_its_labels_and_port() -> None:
    (monitor,) = rendering.read(FOLDER / "service-monitor.yaml")
    (service,) = rendering.of_kind(rendering.read(rendering.BASE / "serve.yaml"), "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_pod_monitor_finds_the_jobs_pods_by_label_and_port() -> None:
    (monitor,) = rendering.read(FOLDER / "pod-monitor.yaml")
    (job,) = rendering.of_kind(rendering.read(rendering.BASE / "train-job.yaml"), "Job")
    pod = job["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    named = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in named


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_a_dashboard_imports_anywhere(name: str) -> None:
    model = json.loads((dashboards.FOLDER / name).read_text(encoding="utf-8"))
    assert (dashboards.FOLDER / name).read_text(encoding="utf-8") == dashboards.render(
        dashboards.DASHBOARDS[name]
    )
    assert model["templating"]["list"][0]["type"] == "datasource"
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in model["panels"]}
    assert len(places) == len(model["panels"])
    for panel in model["panels"]:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["legendFormat"] for target in panel["targets"])


def test_derived_files_are_those_of_the_kustomization() -> None:
    component = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    listed = {FOLDER / path for path in component["configMapGenerator"][0]["files"]}
    assert {path for path in manifests.derived() if path.suffix == ".json"} == listed
