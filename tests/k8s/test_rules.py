"""Each rule catches the breakage that it stands for: the schemas let most of these pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks import rendering, rules, schemas

Breakage = Callable[[dict[str, Any]], Any]


def job(stream: list[Any]) -> dict[str, Any]:
    return next(manifest for manifest in stream if manifest["kind"] == "Job")


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def train(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod(manifest)["containers"][0]
    return container


def limits(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = train(manifest)["resources"]["limits"]
    return found


def hardening(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = train(manifest)["securityContext"]
    return found


def exit_codes(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = failure_rules(manifest)[1]["onExitCodes"]
    return found


def failure_rules(manifest: dict[str, Any]) -> list[Any]:
    found: list[Any] = manifest["spec"]["podFailurePolicy"]["rules"]
    return found


JOB_BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "restart policy missing": (lambda j: pod(j).pop("restartPolicy"), "restartPolicy None"),
    "restart on failure": (lambda j: pod(j).update(restartPolicy="OnFailure"), "restartPolicy 'OnFailure'"),
    "success counted as failure": (
        lambda j: exit_codes(j)["values"].insert(0, 0),
        "exit code 0",
    ),
    "misspelt action": (lambda j: failure_rules(j)[1].update(action="FailJobs"), "action 'FailJobs'"),
    "misspelt replacement": (
        lambda j: j["spec"].update(podReplacementPolicy="Fail"),
        "podReplacementPolicy",
    ),
    "unknown container": (
        lambda j: exit_codes(j).update(containerName="x"),
        "containerName 'x'",
    ),
    "disruption not first": (lambda j: failure_rules(j).reverse(), "first rule must Ignore"),
    "no deadline": (lambda j: j["spec"].pop("activeDeadlineSeconds"), "unbounded"),
    "mount without volume": (lambda j: pod(j)["volumes"].pop(), "mounts 'shm'"),
    "memory in the wrong unit": (
        lambda j: limits(j).update(memory="24GB"),
        "no quantity",
    ),
    "no memory limit": (
        lambda j: limits(j).pop("memory"),
        "memory request =",
    ),
    "latest image": (lambda j: train(j).update(image="train:latest"), "no fixed version"),
    "image without version": (lambda j: train(j).update(image="train"), "no fixed version"),
    "image with a registry": (
        lambda j: train(j).update(image="a.example/stratified-train:1"),
        "names a registry",
    ),
    "unknown ConfigMap": (
        lambda j: pod(j)["volumes"][1]["configMap"].update(name="x"),
        "wants ConfigMap 'x'",
    ),
    "unknown account": (lambda j: pod(j).update(serviceAccountName="x"), "ServiceAccount 'x'"),
    "token mounted": (lambda j: pod(j).pop("automountServiceAccountToken"), "API token"),
    "service links": (lambda j: pod(j).pop("enableServiceLinks"), "inject variables"),
    "host network": (lambda j: pod(j).update(hostNetwork=True), "hostNetwork"),
    "host path": (lambda j: pod(j)["volumes"][0].update(hostPath={"path": "/"}), "take one of"),
    "root allowed": (lambda j: pod(j)["securityContext"].pop("runAsNonRoot"), "may run as root"),
    "no numeric user": (lambda j: pod(j)["securityContext"].pop("runAsUser"), "numeric user"),
    "user zero": (lambda j: pod(j)["securityContext"].update(runAsUser=0), "numeric user"),
    "no seccomp": (lambda j: pod(j)["securityContext"].pop("seccompProfile"), "seccomp"),
    "escalation": (lambda j: hardening(j).pop("allowPrivilegeEscalation"), "escalate"),
    "privileged": (lambda j: hardening(j).update(privileged=True), "privileged"),
    "writable root": (lambda j: hardening(j).pop("readOnlyRootFilesystem"), "writable root"),
    "capabilities kept": (
        lambda j: hardening(j)["capabilities"].update(drop=[]),
        "capabilities",
    ),
    "capability added": (
        lambda j: hardening(j)["capabilities"].update(add=["SYS_ADMIN"]),
        "capabilities",
    ),
}


@pytest.fixture
def training() -> list[Any]:
    return rendering.read(rendering.BASE / "train-job.yaml")


@pytest.fixture
def serving() -> list[Any]:
    return rendering.read(rendering.BASE / "serve.yaml")


@pytest.mark.parametrize("name", JOB_BREAKAGES)
def test_a_broken_job_is_caught(training: list[Any], name: str) -> None:
    breakage, message = JOB_BREAKAGES[name]
    assert rules.faults(training) == []
    breakage(job(training))
    assert any(message in fault for fault in rules.faults(training))


def selector(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["selector"]["matchLabels"]
    return found


def port(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["ports"][0]
    return found


SERVICE_BREAKAGES: dict[str, tuple[str, Breakage, str]] = {
    "selector off its pods": (
        "Deployment",
        lambda d: d["spec"]["selector"]["matchLabels"].update(a="b"),
        "own pod labels",
    ),
    "service selects nothing": ("Service", lambda s: s["spec"].update(selector={"a": "b"}), "selects no pod"),
    "budget selects nothing": ("PodDisruptionBudget", lambda b: selector(b).update(a="b"), "selects no pod"),
    "unknown named port": (
        "Service",
        lambda s: port(s).update(targetPort="http"),
        "port 'http'",
    ),
}


@pytest.mark.parametrize("name", SERVICE_BREAKAGES)
def test_a_broken_service_is_caught(serving: list[Any], name: str) -> None:
    kind, breakage, message = SERVICE_BREAKAGES[name]
    assert rules.faults(serving) == []
    breakage(rendering.of_kind(serving, kind)[0])
    assert any(message in fault for fault in rules.faults(serving))


def test_a_policy_naming_an_unknown_port_is_caught(serving: list[Any]) -> None:
    policies = rendering.read(rendering.BASE / "network-policies.yaml")
    service_policy = copy.deepcopy(policies[1])
    service_policy["spec"]["ingress"][0]["ports"][0]["port"] = "http"
    assert any("port 'http'" in fault for fault in rules.faults([*serving, service_policy]))


def test_an_autoscaler_without_its_target_is_caught() -> None:
    assert any(
        "target" in fault for fault in rules.faults(rendering.read(rendering.BASE / "autoscaling.yaml"))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backofLimit": 4}, "backofLimit"),
        ({"backoffLimit": "four"}, "backoffLimit"),
    ],
)
def test_the_schemas_refuse_unknown_fields_and_wrong_types(
    training: list[Any], change: dict[str, Any], message: str
) -> None:
    job(training)["spec"].update(change)
    assert any(message in fault for fault in schemas.schema_faults(training))


def test_the_schemas_refuse_an_unknown_version_of_a_kind(training: list[Any]) -> None:
    job(training).update(apiVersion="apps/v1")
    assert any("no schema" in fault for fault in schemas.schema_faults(training))
