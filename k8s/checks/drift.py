"""Whether what manifests, Dockerfiles, rules and dashboards name is what the code has by that name.

Each check takes what was read and yields one line a fault; the code's side is asked of the code itself. It
judges no manifest (rules.py does), it only compares.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import grpc
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from k8s.checks.rendering import FOLDER, Manifest, containers, of_kind, pod_template
from k8s.checks.schemas import inner_jobs
from protos.stratified.v1 import sentiment_pb2
from serving import series
from serving.errors import StartError
from serving.metrics import Metrics
from serving.settings import PREFIX, Settings, read_settings
from trainer_job import errors, nodes
from trainer_job.cli import build_parser
from trainer_job.config import RunConfig
from trainer_job.errors import JobError
from trainer_job.launch import Devices
from trainer_job.loading import load_config
from trainer_job.shards import INDEX, parse_shard
from trainer_job.telemetry import SweepCollector, parse_address
from trainer_job.units import Layout, State, planned_units

FINAL = sorted(
    {
        kind.exit_code
        for kind in (errors.ConfigError, errors.DataError, errors.WeightsError, errors.TrainingFailed)
    }
)
SERVICE = sentiment_pb2.DESCRIPTOR.services_by_name["SentimentService"].full_name
# Inside the container: downloads, temporary files, and what loader workers and NCCL share.
WRITTEN = ("/cache", "/tmp", "/dev/shm")  # noqa: S108 - nothing is created here
# Series of kube-state-metrics, cAdvisor and the kubelet, as their documentation lists them.
FOREIGN = {
    "up",
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_available",
    "kube_horizontalpodautoscaler_status_condition",
    "kube_job_complete",
    "kube_job_failed",
    "kube_job_status_active",
    "kube_job_status_failed",
    "kube_job_status_start_time",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}
NAME = re.compile(
    r"\b((?:stratified|grpc_server|kube|kubelet|container|process)_[a-z_0-9]+|up)\b(?=[{\[ )]|$)"
)
# Label → the values that the code, gRPC or kube-state-metrics can give it.
VALUES: dict[str, set[str]] = {
    "grpc_code": {code.name for code in grpc.StatusCode},
    "grpc_type": {"unary", "client_stream", "server_stream", "bidi_stream"},
    "reason": {*series.ITEM_ERRORS, *series.REJECT_REASONS, *series.DROP_REASONS},
    "outcome": set(series.SWAP_OUTCOMES),
    "state": set(get_args(State)),
}


def workloads(stream: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Every Job and Deployment of a stream, JobSets' inner Jobs too, and its only container."""
    for manifest in (inner for outer in stream for inner in (outer, *inner_jobs(outer))):
        template = pod_template(manifest)
        if template is not None:
            yield manifest, containers(template)[-1]


def environment(container: Manifest) -> dict[str, str | None]:
    """Variables of a container; None for what Kubernetes fills in."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def mounted_configs(manifest: Manifest, stream: list[Manifest]) -> dict[str, str]:
    """Path → text of every ConfigMap key that a workload mounts."""
    spec = manifest["spec"]["template"]["spec"]
    maps = {entry["metadata"]["name"]: entry["data"] for entry in of_kind(stream, "ConfigMap")}
    volumes = {v["name"]: maps.get(v["configMap"]["name"], {}) for v in spec["volumes"] if "configMap" in v}
    return {
        f"{mount['mountPath']}/{key}": text
        for mount in spec["containers"][0]["volumeMounts"]
        for key, text in volumes.get(mount["name"], {}).items()
    }


def parsed(arguments: list[str], files: Mapping[str, str]) -> tuple[Any, RunConfig]:
    """Options and configuration of a job's command line, mounted files in place. Raises JobError."""
    options = build_parser().parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as folder:
        name = options.config
        if name in files:
            path = Path(folder, "sweep.yaml")
            path.write_text(files[name], encoding="utf-8")
            name = str(path)
        return options, load_config(name, settings=options.settings, environ={})


def job_arguments(stream: list[Manifest]) -> Iterator[str]:
    """Arguments are a command of the program; port, shards and nodes fit what the pod says of itself."""
    for manifest, container in workloads(stream):
        if manifest["kind"] != "Job":
            continue
        where = f"Job {manifest['metadata']['name']}"
        try:
            options, config = parsed(container.get("args", []), mounted_configs(manifest, stream))
            yield from _ports_of_job(where, options, container)
            yield from _parts_of_job(where, options, config, manifest["spec"], container)
            yield from _paths_of_job(where, config, container)
        except JobError as error:
            yield f"{where}: arguments {container.get('args')}: {error}"


def _ports_of_job(where: str, options: Any, container: Manifest) -> Iterator[str]:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    said = parse_address(options.metrics)[1] if options.metrics else None
    if ports.get("metrics") != said:
        yield f"{where}: --metrics says port {said}, the container {ports.get('metrics')}; make them one"
    rendezvous = environment(container).get("PET_MASTER_PORT")
    if str(ports.get("rendezvous", rendezvous)) != str(rendezvous):
        yield f"{where}: PET_MASTER_PORT is {rendezvous}, the port {ports.get('rendezvous')}; make them one"


def _parts_of_job(
    where: str, options: Any, config: RunConfig, spec: Manifest, container: Manifest
) -> Iterator[str]:
    count = spec.get("completions", 1)
    if options.shard:
        shards = [parse_shard(options.shard, {INDEX: str(index)}) for index in range(count)]
        named = [unit for shard in shards for unit in shard.of(planned_units(config))]
        if sorted(unit.name for unit in named) != sorted(unit.name for unit in planned_units(config)):
            yield f"{where}: --shard {options.shard} over {count} pods does not give each unit to one pod"
        return
    variables = {name: value or "" for name, value in environment(container).items()}
    for index in range(count):
        found = nodes.find_nodes(config.hardware, {**variables, INDEX: str(index)})
        if (found.count, found.rank) != (count, index):
            yield f"{where}: pod {index} of {count} takes itself for node {found.rank} of {found.count}"


def _paths_of_job(where: str, config: RunConfig, container: Manifest) -> Iterator[str]:
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    written = [f"/app/{config.results.parts[0]}", f"/app/{config.logs.parts[0]}", *WRITTEN]
    for folder in written:
        if folder not in mounts:
            yield f"{where}: writes to {folder}, where nothing is mounted; mount it"
    beat = f'"/app/{Layout.of(config).state / "heartbeat"}"'
    if beat not in container["livenessProbe"]["exec"]["command"][-1]:
        yield f"{where}: the liveness probe does not look at {beat}; correct its path"


def exit_codes(stream: list[Manifest]) -> Iterator[str]:
    """The codes that end a Job or an index at once are those that no retry can mend."""
    for manifest, _ in workloads(stream):
        rules = manifest["spec"].get("podFailurePolicy", {}).get("rules", [])
        ending = [rule for rule in rules if rule["action"] in {"FailJob", "FailIndex"}]
        codes = sorted(code for rule in ending for code in rule["onExitCodes"]["values"])
        if manifest["kind"] == "Job" and codes != FINAL:
            yield f"Job {manifest['metadata']['name']}: ends on exit codes {codes}, the code's are {FINAL}"


def variables(stream: list[Manifest]) -> Iterator[str]:
    """Every variable is read by the code, and its value is one that the code takes."""
    for manifest, container in workloads(stream):
        where, given = f"{manifest['kind']} {manifest['metadata']['name']}", environment(container)
        known = {PREFIX + name.upper() for name in Settings.model_fields}
        if manifest["kind"] == "Job":
            known = set(re.findall(r"PET_[A-Z_]+", inspect.getsource(nodes)))
        for name in sorted(set(given) - known):
            yield f"{where}: variable {name} is nothing that the code reads; correct or remove it"
        if manifest["kind"] == "Deployment":
            fixed = {name: value for name, value in given.items() if value is not None and name in known}
            try:
                read_settings({}, fixed)
            except StartError as error:
                yield f"{where}: {error}"


def service_ports(stream: list[Manifest]) -> Iterator[str]:
    """Container ports are the settings' defaults; probes ask the probe port for a service that exists."""
    fields = Settings.model_fields
    wanted = {"grpc": fields["port"], "probe": fields["probe_port"], "metrics": fields["metrics_port"]}
    for manifest, container in workloads(stream):
        if manifest["kind"] != "Deployment":
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for name, field in wanted.items():
            if ports.get(name) != field.default:
                yield f"Deployment: port {name} is {ports.get(name)}, the code listens on {field.default}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["grpc"]
            if asked["port"] != fields["probe_port"].default:
                yield f"Deployment: {probe} asks port {asked['port']}, not {fields['probe_port'].default}"
            if asked.get("service", SERVICE) != SERVICE:
                yield f"Deployment: {probe} asks for {asked['service']!r}, which is not {SERVICE!r}"


def hand_over(stream: list[Manifest]) -> Iterator[str]:
    """The service reads where the job writes, and files named in variables lie below something mounted."""
    found = list(workloads(stream))
    written = RunConfig.model_fields["results"].default.relative_to("results")
    for manifest, container in found:
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        for name, value in environment(container).items():
            if value and value.startswith("/") and not any(value.startswith(f"{place}/") for place in mounts):
                yield f"{manifest['kind']}: {name}={value}: nothing is mounted there; mount it or correct it"
        if manifest["kind"] == "Deployment":
            models = environment(container).get(f"{PREFIX}MODELS", "")
            if models != f"/volume/results/{written}":
                yield f"Deployment: {PREFIX}MODELS={models}, the job writes to /volume/results/{written}"
        elif mounts.get("/app/results", {}).get("subPath") != "results":
            yield "Job: /app/results is not the volume's folder results; the service looks there"


def dockerfile(name: str, text: str, scripts: Mapping[str, str], version: str) -> Iterator[str]:
    """Entry point, ports, variables and version of an image."""
    program = f"stratified-{name}"
    if f'ENTRYPOINT ["{program}"]' not in text or program not in scripts:
        yield f"Dockerfile.{name}: its entry point is not {program}, which pyproject.toml declares"
    fields = Settings.model_fields
    ports = {"serve": ("port", "probe_port", "metrics_port"), "train": ("metrics_port",)}[name]
    exposed = re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE)
    if sorted(map(int, " ".join(exposed).split())) != sorted(fields[port].default for port in ports):
        yield f"Dockerfile.{name}: EXPOSE {exposed} are not the code's ports"
    for variable in re.findall(rf"({PREFIX}[A-Z_]+)=", text):
        if variable.removeprefix(PREFIX).lower() not in fields:
            yield f"Dockerfile.{name}: variable {variable} is no setting; correct or remove it"
    if f"ARG VERSION={version}\n" not in text:
        yield f"Dockerfile.{name}: its version is not {version}, as in pyproject.toml"


def exported() -> set[str]:
    """Every series name that the service or the job may export."""
    registry = CollectorRegistry()
    Metrics(registry)
    registry.register(SweepCollector(Layout(Path("no"), Path("no")), [], Devices("cpu", 1)))
    ProcessCollector(registry=registry)
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, [""])
    }


def expression(text: str, known: set[str]) -> Iterator[str]:
    """Series and label values of one PromQL expression; `known` are exported or recorded."""
    for name in sorted(set(NAME.findall(text)) - known - FOREIGN):
        yield f"series {name} is exported by nobody; correct its name in: {' '.join(text.split())}"
    for label, values in re.findall(r'\b([a-z_]+)(?:=|!=|=~|!~)"([^"$]*)"', text):
        for value in values.split("|") if label in VALUES else ():
            if value not in VALUES[label]:
                yield f"{label}={value!r} is no value of that label; use one of {sorted(VALUES[label])}"


STREAM_CHECKS = (job_arguments, exit_codes, variables, service_ports, hand_over)


def stream_faults(stream: list[Manifest]) -> list[str]:
    """All faults of all checks of a stream."""
    return [fault for check in STREAM_CHECKS for fault in check(stream)]


def rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    groups = yaml.safe_load((FOLDER / "monitoring" / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]
