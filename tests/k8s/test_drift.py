"""What manifests, Dockerfiles, rules and dashboards name is the code's, and breaking any of it is noticed."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import dashboards, drift, manifests, rendering
from serving import errors as serving_errors
from serving.settings import Settings
from trainer_job import errors
from trainer_job.config import HardwareConfig, RunConfig
from trainer_job.loading import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
Stream = list[dict[str, Any]]
needs_kubectl = pytest.mark.skipif(rendering.kubectl() is None, reason="kubectl is not on the path")


@pytest.fixture(scope="module")
def streams() -> dict[str, Stream]:
    return manifests.streams()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        found: dict[str, Any] = tomllib.load(stream)["project"]
    return found


def dockerfile(name: str) -> str:
    return (ROOT / f"Dockerfile.{name}").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("name", [*rendering.STANDALONE, "base"])
def test_the_base_names_what_the_code_has(streams: dict[str, Stream], name: str) -> None:
    if name not in streams:
        pytest.skip("kubectl is not on the path")
    assert drift.stream_faults(streams[name]) == []


@needs_kubectl
@pytest.mark.parametrize("folder", rendering.overlays(), ids=lambda path: path.name)
def test_an_overlay_names_what_the_code_has(streams: dict[str, Stream], folder: Path) -> None:
    assert drift.stream_faults(streams[f"overlays/{folder.name}"]) == []


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


@pytest.mark.parametrize("name", ["train", "serve"])
def test_a_dockerfile_names_what_the_code_has(name: str, project: dict[str, Any]) -> None:
    assert list(drift.dockerfile(name, dockerfile(name), project["scripts"], project["version"])) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("serve", 'ENTRYPOINT ["stratified-serve"]', 'ENTRYPOINT ["stratified-server"]', "entry point"),
        ("serve", "EXPOSE 50051", "EXPOSE 50050", "EXPOSE"),
        ("train", "EXPOSE 9464", "EXPOSE 9090", "EXPOSE"),
        ("serve", "STRATIFIED_MODELS=", "STRATIFIED_MODEL_DIR=", "STRATIFIED_MODEL_DIR is no setting"),
        ("train", "ARG VERSION=", "ARG VERSION=9.", "its version is not"),
    ],
)
def test_a_dockerfile_broken_on_purpose_is_noticed(
    name: str, old: str, new: str, message: str, project: dict[str, Any]
) -> None:
    text = dockerfile(name)
    assert old in text
    broken = text.replace(old, new)
    faults = drift.dockerfile(name, broken, project["scripts"], project["version"])
    assert any(message in fault for fault in faults)


def test_the_health_check_and_probes_ask_the_same_port() -> None:
    assert f'"127.0.0.1:{Settings.model_fields["probe_port"].default}"' in dockerfile("serve")


def known() -> set[str]:
    return drift.exported() | {rule["record"] for rule in drift.rules() if "record" in rule}


def expressions() -> list[str]:
    panels = [
        panel
        for name in dashboards.DASHBOARDS
        for panel in json.loads((dashboards.FOLDER / name).read_text(encoding="utf-8"))["panels"]
    ]
    return [rule["expr"] for rule in drift.rules()] + [
        target["expr"] for panel in panels for target in panel["targets"]
    ]


def test_every_series_and_label_value_in_rules_and_dashboards_is_the_codes() -> None:
    exported = known()
    assert [fault for text in expressions() for fault in drift.expression(text, exported)] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stratified_queue_age_seconds > 1", "stratified_queue_age_seconds is exported by nobody"),
        ("rate(stratified_train_step_total[5m])", "stratified_train_step_total is exported by nobody"),
        ("sum(kube_jobs_failed)", "kube_jobs_failed"),
        ('x{grpc_code=~"OK|INTERNAL_ERROR"}', "'INTERNAL_ERROR' is no value"),
        ('stratified_rejected_total{reason="FULL"}', "reason='FULL'"),
        ('stratified_train_units{state!="done"}', "state='done'"),
        ('stratified_model_swaps_total{outcome="ok"}', "outcome='ok'"),
    ],
)
def test_a_series_or_value_broken_on_purpose_is_noticed(text: str, message: str) -> None:
    assert any(message in fault for fault in drift.expression(text, known()))


def test_the_metrics_that_the_docs_name_exist() -> None:
    names = set(re.findall(r"`(stratified_[a-z_]+)", DOCS))
    family = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in known()}
    assert {name for name in names if re.sub(r"_total$", "", name) not in family} == set()


def test_the_config_map_is_the_shipped_reference(streams: dict[str, Stream]) -> None:
    config = of(streams["train-job.yaml"], "ConfigMap")["data"]["sweep.yaml"]
    shipped = (SHIPPED / "reference.yaml").read_text(encoding="utf-8")
    assert config == shipped, "run `python -m k8s.checks.manifests --write`"
    RunConfig.model_validate(yaml.safe_load(config))


def test_exit_codes_that_are_tried_again_end_no_job() -> None:
    retried = (errors.JobError, errors.Locked, errors.PartialFailure, errors.Preempted)
    assert not {kind.exit_code for kind in retried} & set(drift.FINAL)


@pytest.mark.parametrize(
    ("program", "kinds"),
    [("stratified-train", errors.JobError), ("stratified-serve", serving_errors.StartError)],
)
def test_the_docs_list_every_exit_code(program: str, kinds: type[Any]) -> None:
    table = DOCS.partition(f"| `{program}` | meaning")[2].partition("\n\n")[0]
    listed = {
        int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(",")
    }

    def below(kind: type[Any]) -> set[int]:
        return {kind.exit_code}.union(*(below(each) for each in kind.__subclasses__()))

    assert below(kinds) <= listed


def test_the_jobs_grace_covers_its_own(streams: dict[str, Stream]) -> None:
    grace = pod(streams["train-job.yaml"], "Job")["terminationGracePeriodSeconds"]
    assert grace >= HardwareConfig.model_fields["grace_seconds"].default + 15


def test_the_services_grace_covers_one_pause_and_the_drain(streams: dict[str, Stream]) -> None:
    stream = streams["serve.yaml"]
    paused = container(stream, "Deployment")["lifecycle"]["preStop"]["sleep"]["seconds"]
    own = float(variable(stream, "Deployment", "STRATIFIED_SETTLE_SECONDS")["value"])
    assert own == 0, "preStop pauses already"
    drain = Settings.model_fields["grace_seconds"].default
    assert pod(stream, "Deployment")["terminationGracePeriodSeconds"] >= paused + own + drain + 5


def test_both_mount_the_claim_that_the_job_brings(streams: dict[str, Stream]) -> None:
    claims = [
        entry["persistentVolumeClaim"]["claimName"]
        for name, kind in (("train-job.yaml", "Job"), ("serve.yaml", "Deployment"))
        for entry in pod(streams[name], kind)["volumes"]
        if "persistentVolumeClaim" in entry
    ]
    assert claims == [of(streams["train-job.yaml"], "PersistentVolumeClaim")["metadata"]["name"]] * 2


@needs_kubectl
def test_the_sets_pod_is_the_jobs(streams: dict[str, Stream]) -> None:
    job, ranks = (copy.deepcopy(pod(streams[s], k)) for s, k in (("base", "Job"), (NODES, "JobSet")))
    for spec in (job, ranks):
        for name in ("args", "env", "ports"):
            spec["containers"][0].pop(name, None)
    assert job == ranks


@needs_kubectl
def test_the_ranks_meet_at_the_first_pods_host_name(streams: dict[str, Stream]) -> None:
    ranks = of(streams[NODES], "JobSet")
    name, part = ranks["metadata"]["name"], ranks["spec"]["replicatedJobs"][0]["name"]
    address = variable(streams[NODES], "JobSet", "PET_MASTER_ADDR")["value"]
    assert address == f"{name}-{part}-0-0.{name}"  # JobSet: <set>-<part>-<job>-<pod>.<subdomain>
    assert ranks["spec"]["network"]["enableDNSHostnames"] is True


@pytest.mark.parametrize("name", ["train", "serve"])
def test_names_versions_and_users_of_image_and_pod_agree(
    name: str, streams: dict[str, Stream], project: dict[str, Any]
) -> None:
    place, kind = ("train-job.yaml", "Job") if name == "train" else ("serve.yaml", "Deployment")
    assert container(streams[place], kind)["image"] == f"stratified-{name}:{project['version']}"
    context = pod(streams[place], kind)["securityContext"]
    assert dockerfile(name).count(f"USER {context['runAsUser']}:{context['runAsGroup']}\n")


def test_the_standalone_files_carry_the_notice() -> None:
    assert all("edit that file" in manifests.standalone(name) for name in rendering.STANDALONE)
