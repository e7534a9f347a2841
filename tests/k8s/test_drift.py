"""Every exit code, port, path, name and setting in manifests and Dockerfiles is the code's own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import manifests, rendering
from protos.stratified.v1 import sentiment_pb2
from serving.settings import PREFIX, Settings
from trainer_job import errors
from trainer_job.__main__ import build_parser
from trainer_job.config import HardwareConfig, RunConfig
from trainer_job.loading import SHIPPED, load_config
from trainer_job.units import Layout

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("train", "serve")
STREAMS = [rendering.BASE, *rendering.overlays()]
needs_kubectl = pytest.mark.skipif(rendering.kubectl() is None, reason="kubectl is not on the path")


def base(name: str, kind: str) -> dict[str, Any]:
    """The only object of a kind in one of the base's files."""
    (found,) = rendering.of_kind(rendering.read(rendering.BASE / name), kind)
    return found


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def dockerfile(name: str) -> str:
    return (ROOT / f"Dockerfile.{name}").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return base("train-job.yaml", "Job")


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    return base("serve.yaml", "Deployment")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        found: dict[str, Any] = tomllib.load(stream)["project"]
    return found


def test_the_job_fails_at_once_exactly_on_what_no_retry_can_mend(job: dict[str, Any]) -> None:
    final = (errors.ConfigError, errors.DataError, errors.WeightsError, errors.TrainingFailed)
    retried = (errors.JobError, errors.Locked, errors.PartialFailure, errors.Preempted)
    codes = job["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    assert codes == sorted({kind.exit_code for kind in final})
    assert not {kind.exit_code for kind in retried} & set(codes)


def test_the_config_map_is_the_shipped_reference() -> None:
    config = base("train-job.yaml", "ConfigMap")["data"]["sweep.yaml"]
    shipped = (SHIPPED / "reference.yaml").read_text(encoding="utf-8")
    assert config == shipped, "run `python -m k8s.checks.manifests --write`"
    RunConfig.model_validate(yaml.safe_load(config))


def commands(stream: list[dict[str, Any]]) -> list[list[str]]:
    found = [container(manifest)["args"] for manifest in rendering.of_kind(stream, "Job")]
    assert found
    return found


@needs_kubectl
@pytest.mark.parametrize("folder", STREAMS, ids=lambda path: path.name)
def test_the_jobs_arguments_are_a_command_of_the_program(folder: Path, tmp_path: Path) -> None:
    for arguments in commands(rendering.render(folder)):
        options = build_parser().parse_args(arguments)
        mounted = tmp_path / "sweep.yaml"
        mounted.write_text(base("train-job.yaml", "ConfigMap")["data"]["sweep.yaml"], encoding="utf-8")
        name = str(mounted) if options.config == "/etc/train/sweep.yaml" else options.config
        load_config(name, settings=options.settings, environ={})


def test_the_configuration_is_mounted_where_the_arguments_say(job: dict[str, Any]) -> None:
    (mount,) = [mount for mount in container(job)["volumeMounts"] if mount["name"] == "config"]
    assert "--config" in container(job)["args"]
    assert f"{mount['mountPath']}/sweep.yaml" in container(job)["args"]


def reference() -> RunConfig:
    return load_config("reference", settings=[], environ={})


def test_results_logs_and_cache_are_mounted_where_the_configuration_writes(job: dict[str, Any]) -> None:
    config = reference()
    mounts = {mount["mountPath"] for mount in container(job)["volumeMounts"]}
    assert f"/app/{config.results.parts[0]}" in mounts
    assert f"/app/{config.logs.parts[0]}" in mounts
    assert f"ln -s /cache /app/{config.cache}" in dockerfile("train")
    assert "/cache" in mounts


def test_the_liveness_probe_reads_the_codes_heartbeat(job: dict[str, Any]) -> None:
    heartbeat = Layout.of(reference()).state / "heartbeat"
    assert f'"/app/{heartbeat}"' in container(job)["livenessProbe"]["exec"]["command"][-1]


def test_the_jobs_grace_covers_its_own(job: dict[str, Any]) -> None:
    grace = job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= HardwareConfig.model_fields["grace_seconds"].default + 15


def test_the_services_grace_covers_its_pause_and_drain(deployment: dict[str, Any]) -> None:
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert grace >= defaults["settle_seconds"] + defaults["grace_seconds"] + 5


def test_the_services_ports_are_the_defaults_of_its_settings(deployment: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(deployment)["ports"]}
    fields = Settings.model_fields
    wanted = {"grpc": fields["port"], "probe": fields["probe_port"], "metrics": fields["metrics_port"]}
    assert ports == {name: field.default for name, field in wanted.items()}
    exposed = re.search(r"^EXPOSE (.*)$", dockerfile("serve"), re.MULTILINE)
    assert exposed is not None
    assert sorted(map(int, exposed.group(1).split())) == sorted(ports.values())
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(deployment)[probe]["grpc"]["port"] == ports["probe"]
    assert f"127.0.0.1:{ports['probe']}" in dockerfile("serve")


def test_readiness_asks_for_the_service_by_its_full_name(deployment: dict[str, Any]) -> None:
    name = sentiment_pb2.DESCRIPTOR.services_by_name["SentimentService"].full_name
    assert container(deployment)["readinessProbe"]["grpc"]["service"] == name
    assert container(deployment)["startupProbe"]["grpc"]["service"] == name
    assert "service" not in container(deployment)["livenessProbe"]["grpc"]


def test_every_variable_of_ours_is_a_setting(deployment: dict[str, Any]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = {entry["name"] for entry in container(deployment)["env"]}
    named |= set(re.findall(r"(STRATIFIED_[A-Z_]+)=", dockerfile("serve")))
    assert {name for name in named if name.startswith(PREFIX)} <= known
    assert {"STRATIFIED_MODELS", "STRATIFIED_HOST"} <= named


def test_the_service_reads_what_the_job_writes(job: dict[str, Any], deployment: dict[str, Any]) -> None:
    (results,) = [mount for mount in container(job)["volumeMounts"] if mount["mountPath"] == "/app/results"]
    (volume,) = [mount for mount in container(deployment)["volumeMounts"] if mount["name"] == "results"]
    written = reference().results.relative_to("results")
    environment = {entry["name"]: entry.get("value") for entry in container(deployment)["env"]}
    assert environment["STRATIFIED_MODELS"] == f"{volume['mountPath']}/{results['subPath']}/{written}"
    claims = [
        entry["persistentVolumeClaim"]["claimName"]
        for manifest in (job, deployment)
        for entry in manifest["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in entry
    ]
    assert claims == [base("train-job.yaml", "PersistentVolumeClaim")["metadata"]["name"]] * 2


@pytest.mark.parametrize("name", IMAGES)
def test_image_names_versions_and_entry_points_are_the_projects(name: str, project: dict[str, Any]) -> None:
    text = dockerfile(name)
    assert f'ENTRYPOINT ["stratified-{name}"]' in text
    assert f"stratified-{name}" in project["scripts"]
    assert f"ARG VERSION={project['version']}\n" in text
    kind, file = ("Job", "train-job.yaml") if name == "train" else ("Deployment", "serve.yaml")
    assert container(base(file, kind))["image"] == f"stratified-{name}:{project['version']}"


@pytest.mark.parametrize("name", IMAGES)
def test_user_of_image_and_pod_agree(name: str, job: dict[str, Any], deployment: dict[str, Any]) -> None:
    context = (job if name == "train" else deployment)["spec"]["template"]["spec"]["securityContext"]
    assert dockerfile(name).count(f"USER {context['runAsUser']}:{context['runAsGroup']}\n")


def test_the_standalone_files_carry_the_notice() -> None:
    assert all("edit that file" in manifests.standalone(name) for name in rendering.STANDALONE)
