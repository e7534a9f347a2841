"""Every kind of name in a manifest, broken on purpose, is noticed by the comparison with the code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from k8s.checks import drift, manifests
from tests.k8s.parts import (
    Stream,
    break_heartbeat,
    codes,
    container,
    mount,
    of,
    port,
    probe,
    rename_key,
    replace_argument,
    variable,
)


@pytest.fixture(scope="module")
def streams() -> dict[str, Stream]:
    return manifests.streams()


SHARED = "overlays/indexed"
NODES = "overlays/multinode"
SECURED = "overlays/secured"
# What is broken on purpose → in which stream, how, and what is said of it.
BREAKAGES: dict[str, tuple[str, Callable[[Stream], object], str]] = {
    "command": ("train-job.yaml", lambda s: replace_argument(s, "Job", "run", "train"), "invalid choice"),
    "flag": ("train-job.yaml", lambda s: replace_argument(s, "Job", "--export", "--exports"), "unrecognized"),
    "flag's value": ("train-job.yaml", lambda s: replace_argument(s, "Job", "onnx", "trt"), "invalid choice"),
    "setting": (SHARED, lambda s: replace_argument(s, "Job", "hardware.", "hardwares."), "unknown key"),
    "ConfigMap key": ("train-job.yaml", rename_key, "/etc/train/sweep.yaml"),
    "ConfigMap content": (
        "train-job.yaml",
        lambda s: of(s, "ConfigMap")["data"].update({"sweep.yaml": "modell: {}\n"}),
        "unknown key",
    ),
    "ConfigMap place": (
        "train-job.yaml",
        lambda s: mount(s, "Job", "/etc/train").update(mountPath="/etc/other"),
        "/etc/train/sweep.yaml",
    ),
    "job's port": (
        "train-job.yaml",
        lambda s: port(s, "Job", "metrics").update(containerPort=9465),
        "the container 9465",
    ),
    "results path": (
        "train-job.yaml",
        lambda s: mount(s, "Job", "/app/results").update(mountPath="/app/result"),
        "writes to /app/results",
    ),
    "cache path": (
        "train-job.yaml",
        lambda s: mount(s, "Job", "/cache").update(mountPath="/caches"),
        "writes to /cache",
    ),
    "heartbeat path": ("train-job.yaml", break_heartbeat, "the liveness probe"),
    "exit code": ("train-job.yaml", lambda s: codes(s, "Job", 1).update(values=[2, 3, 43]), "[2, 3, 43]"),
    "index's exit code": (SHARED, lambda s: codes(s, "Job", 2).update(values=[70]), "[2, 3, 70]"),
    "set's exit code": (NODES, lambda s: codes(s, "JobSet", 0).update(values=[2, 3]), "[2, 3], the code"),
    "shards": (SHARED, lambda s: of(s, "Job")["spec"].update(completions=4), "each unit to one pod"),
    "shard's form": (SHARED, lambda s: replace_argument(s, "Job", "auto/5", "auto-5"), "not of the form"),
    "nodes": (NODES, lambda s: variable(s, "JobSet", "PET_NNODES").update(value="3"), "node 0 of 3"),
    "nodes' variable": (
        NODES,
        lambda s: variable(s, "JobSet", "PET_MASTER_ADDR").update(name="PET_MASTER"),
        "PET_MASTER is nothing that the code reads",
    ),
    "nodes' port": (
        NODES,
        lambda s: port(s, "JobSet", "rendezvous").update(containerPort=1),
        "PET_MASTER_PORT is 29400",
    ),
    "service's port": (
        "serve.yaml",
        lambda s: port(s, "Deployment", "grpc").update(containerPort=50050),
        "port grpc is 50050",
    ),
    "probe's port": ("serve.yaml", lambda s: probe(s, "livenessProbe").update(port=50051), "asks port 50051"),
    "probed service": (
        "serve.yaml",
        lambda s: probe(s, "readinessProbe").update(service="stratified.v2.SentimentService"),
        "stratified.v2",
    ),
    "variable": (
        "serve.yaml",
        lambda s: variable(s, "Deployment", "STRATIFIED_THREADS").update(name="STRATIFIED_THREAD"),
        "STRATIFIED_THREAD is nothing that the code reads",
    ),
    "variable's value": (
        "serve.yaml",
        lambda s: variable(s, "Deployment", "STRATIFIED_SETTLE_SECONDS").update(value="soon"),
        "--settle-seconds 'soon'",
    ),
    "job's variable": (
        "train-job.yaml",
        lambda s: container(s, "Job").update(env=[{"name": "POD_NAME", "value": "x"}]),
        "POD_NAME is nothing that the code reads",
    ),
    "models' path": (
        "serve.yaml",
        lambda s: variable(s, "Deployment", "STRATIFIED_MODELS").update(value="/volume/results/other"),
        "the job writes to",
    ),
    "volume's folder": (
        "train-job.yaml",
        lambda s: mount(s, "Job", "/app/results").update(subPath="other"),
        "not the volume's folder results",
    ),
    "secret's path": (
        SECURED,
        lambda s: variable(s, "Deployment", "STRATIFIED_TLS_KEY").update(value="/etc/ssl/tls.key"),
        "nothing is mounted there",
    ),
    "admin's port": (
        SECURED,
        lambda s: variable(s, "Deployment", "STRATIFIED_ADMIN_PORT").update(value="port"),
        "--admin-port 'port'",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_on_purpose_is_noticed(streams: dict[str, Stream], name: str) -> None:
    place, breakage, message = BREAKAGES[name]
    if place not in streams:
        pytest.skip("kubectl is not on the path")
    broken = copy.deepcopy(streams[place])
    breakage(broken)
    faults = drift.stream_faults(broken)
    assert any(message in fault for fault in faults), faults
