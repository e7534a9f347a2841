"""Checkov's policies, and the schemas of custom kinds."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from k8s.checks import policy, rendering, rules, schemas

POLICIES = rendering.BASE / "network-policies.yaml"


def completed(stdout: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, stdout=stdout, stderr="")


def test_checkovs_findings_and_its_own_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"file_path": "/base.yaml", "resource": "Job.a", "check_id": "CKV_1", "check_name": "no"}
    report = {"summary": {"passed": 3, "parsing_errors": 0}, "results": {"failed_checks": [item]}}
    monkeypatch.setattr(policy, "tool", lambda: "checkov")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: completed(json.dumps(report)))
    assert policy.policy_faults({"base": []}) == (3, ["base: Job.a: CKV_1: no"])
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: completed("what"))
    with pytest.raises(RuntimeError, match="no report"):
        policy.policy_faults({"base": []})


@pytest.mark.skipif(policy.tool() is None, reason="checkov is not installed")
def test_checkov_finds_nothing_in_the_job_and_something_in_a_broken_one() -> None:
    stream, broken = (
        [*rendering.read(rendering.BASE / "train-job.yaml"), rendering.read(POLICIES)[0]] for _ in range(2)
    )
    rendering.of_kind(broken, "Job")[0]["spec"]["template"]["spec"]["containers"][0].pop("securityContext")
    passed, faults = policy.policy_faults({"good": stream, "broken": broken})
    assert passed > 100
    assert any(fault.startswith("broken:") for fault in faults)
    assert not any(fault.startswith("good:") for fault in faults)


@pytest.mark.parametrize(
    ("overlay", "kind", "change", "message"),
    [
        ("multinode", "JobSet", {"replicas": 2}, "'replicas' was unexpected"),
        ("multinode", "JobSet", {"ttlSecondsAfterFinished": "week"}, "'week' is not of type"),
        ("keda", "ScaledObject", {"triggers": []}, "triggers"),
        ("kueue", "LocalQueue", {"clusterQueues": "a"}, "'clusterQueues' was unexpected"),
        ("monitoring", "PodMonitor", {"podMetricsEndpoints": [{"ports": "a"}]}, "'ports' was unexpected"),
    ],
)
@pytest.mark.skipif(rendering.kubectl() is None, reason="kubectl is not on the path")
def test_custom_kinds_are_held_against_their_schemas(
    overlay: str, kind: str, change: dict[str, Any], message: str
) -> None:
    stream = rendering.render(rendering.OVERLAYS / overlay)
    assert schemas.schema_faults(stream) == []
    rendering.of_kind(stream, kind)[0]["spec"].update(change)
    assert any(message in fault for fault in schemas.schema_faults(stream))


@pytest.mark.skipif(rendering.kubectl() is None, reason="kubectl is not on the path")
def test_a_sets_job_is_held_against_kubernetes_schemas_and_our_rules() -> None:
    stream = rendering.render(rendering.OVERLAYS / "multinode")
    spec = rendering.of_kind(stream, "JobSet")[0]["spec"]["replicatedJobs"][0]["template"]["spec"]
    spec["completion"] = 2
    spec["template"]["spec"]["hostNetwork"] = True
    assert any("completion" in fault for fault in schemas.schema_faults(stream))
    assert any("hostNetwork" in fault for fault in rules.faults(stream))


def test_a_kind_that_nobody_knows_is_a_fault() -> None:
    manifest = {"apiVersion": "a.example/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert any("no schema in crds.yaml" in fault for fault in schemas.schema_faults([manifest]))
