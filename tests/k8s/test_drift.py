"""What manifests, Dockerfiles, rules and dashboards name is the code's, and breaking any of it is noticed."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import dashboards, drift, manifests, rendering
from serving import errors as serving_errors
from serving.settings import Settings
from tests.k8s.parts import Stream, container, of, pod, variable
from trainer_job import errors
from trainer_job.config import HardwareConfig, RunConfig
from trainer_job.loading import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NODES = "overlays/multinode"
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


@pytest.mark.parametrize("name", [*rendering.STANDALONE, "base"])
def test_the_base_names_what_the_code_has(streams: dict[str, Stream], name: str) -> None:
    if name not in streams:
        pytest.skip("kubectl is not on the path")
    assert drift.stream_faults(streams[name]) == []


@needs_kubectl
@pytest.mark.parametrize("folder", rendering.overlays(), ids=lambda path: path.name)
def test_an_overlay_names_what_the_code_has(streams: dict[str, Stream], folder: Path) -> None:
    assert drift.stream_faults(streams[f"overlays/{folder.name}"]) == []


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
