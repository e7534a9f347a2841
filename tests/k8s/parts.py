"""Parts of manifests that several tests look at, or break on purpose."""

from __future__ import annotations

from typing import Any

from k8s.checks import rendering

Stream = list[dict[str, Any]]


def of(stream: Stream, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = rendering.of_kind(stream, kind)[0]
    return found


def pod(stream: Stream, kind: str) -> dict[str, Any]:
    """The pod of a Job, a Deployment or a JobSet's Job."""
    spec = of(stream, kind)["spec"]
    if kind == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def container(stream: Stream, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = pod(stream, kind)["containers"][0]
    return found


def variable(stream: Stream, kind: str, name: str) -> dict[str, Any]:
    (found,) = [entry for entry in container(stream, kind)["env"] if entry["name"] == name]
    result: dict[str, Any] = found
    return result


def replace_argument(stream: Stream, kind: str, old: str, new: str) -> None:
    arguments = container(stream, kind)["args"]
    assert any(old in argument for argument in arguments)
    container(stream, kind)["args"] = [argument.replace(old, new) for argument in arguments]


def port(stream: Stream, kind: str, name: str) -> dict[str, Any]:
    (found,) = [entry for entry in container(stream, kind)["ports"] if entry["name"] == name]
    result: dict[str, Any] = found
    return result


def mount(stream: Stream, kind: str, place: str) -> dict[str, Any]:
    (found,) = [entry for entry in container(stream, kind)["volumeMounts"] if entry["mountPath"] == place]
    result: dict[str, Any] = found
    return result


def rename_key(stream: Stream) -> None:
    config = of(stream, "ConfigMap")
    config["data"] = {"other.yaml": config["data"]["sweep.yaml"]}


def codes(stream: Stream, kind: str, place: int) -> dict[str, Any]:
    spec = of(stream, kind)["spec"]
    if kind == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    found: dict[str, Any] = spec["podFailurePolicy"]["rules"][place]["onExitCodes"]
    return found


def probe(stream: Stream, name: str) -> dict[str, Any]:
    found: dict[str, Any] = container(stream, "Deployment")[name]["grpc"]
    return found


def break_heartbeat(stream: Stream) -> None:
    command = container(stream, "Job")["livenessProbe"]["exec"]["command"]
    command[-1] = command[-1].replace("heartbeat", "heart-beat")
