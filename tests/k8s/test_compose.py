"""docker-compose.yaml names what the code, the images and the monitoring files have under that name."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import dashboards
from serving.settings import PREFIX, Settings, read_settings
from trainer_job.cli import build_parser
from trainer_job.loading import load_config
from trainer_job.telemetry import parse_address

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
FOLDER = ROOT / "k8s" / "monitoring" / "compose"


def places(service: str) -> dict[str, str]:
    """Where a service's volumes and files are mounted → what is mounted."""
    return {entry.split(":")[1]: entry.split(":")[0] for entry in SERVICES[service]["volumes"]}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_jobs_command_is_one_of_the_program() -> None:
    options = build_parser().parse_args(SERVICES["train"]["command"])
    config = load_config(options.config, settings=options.settings, environ={})
    assert options.export == "onnx"
    written = [f"/app/{config.results.parts[0]}", f"/app/{config.logs.parts[0]}", "/cache"]
    assert list(places("train")) == written
    assert seconds(SERVICES["train"]["stop_grace_period"]) >= config.hardware.grace_seconds + 15


@pytest.mark.parametrize("name", ["train", "serve"])
def test_images_are_targets_of_the_dockerfiles_and_of_this_version(name: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        version = tomllib.load(stream)["project"]["version"]
    build = SERVICES[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text(encoding="utf-8")
    assert build["dockerfile"] == f"Dockerfile.{name}"
    assert re.search(rf"^FROM \S+ AS {build['target']}$", text, re.MULTILINE)
    assert all(f"ARG {argument}=" in text for argument in build.get("args", {}))
    assert re.fullmatch(rf"stratified-{name}:{re.escape(version)}(-offline)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["train", "serve"])
def test_both_run_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"


def test_the_service_reads_what_the_job_writes_once_it_has_ended() -> None:
    environment = SERVICES["serve"]["environment"]
    assert {name.removeprefix(PREFIX).lower() for name in environment} <= set(Settings.model_fields)
    settings = read_settings({}, environment)
    written = load_config("quickstart", settings=[], environ={}).results.relative_to("results")
    assert places("serve") == {"/volume": "results"}
    assert places("train")["/app/results"] == "results"
    assert settings.models == Path("/volume") / written
    assert SERVICES["serve"]["depends_on"] == {"train": {"condition": "service_completed_successfully"}}
    assert (
        seconds(SERVICES["serve"]["stop_grace_period"])
        >= settings.settle_seconds + settings.grace_seconds + 5
    )


def test_ports_are_the_codes_and_open_on_this_machine_alone() -> None:
    fields = Settings.model_fields
    wanted = [f"127.0.0.1:{fields[name].default}:{fields[name].default}" for name in ("port", "metrics_port")]
    assert SERVICES["serve"]["ports"] == wanted
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_prometheus_scrapes_both_where_they_listen() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    metrics = build_parser().parse_args(SERVICES["train"]["command"]).metrics
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {
        "stratified-serve": [f"serve:{Settings.model_fields['metrics_port'].default}"],
        "stratified-train": [f"train:{parse_address(metrics)[1]}"],
    }
    assert set(config["rule_files"]) <= set(places("prometheus"))


def test_every_mounted_file_is_there_and_every_volume_declared() -> None:
    for name in SERVICES:
        for source in places(name).values():
            assert source in COMPOSE["volumes"] if "/" not in source else (ROOT / source).exists()


def test_grafana_is_given_the_dashboards_and_their_source() -> None:
    provider = yaml.safe_load((FOLDER / "provider.yaml").read_text(encoding="utf-8"))["providers"][0]
    assert places("grafana")[provider["options"]["path"]] == f"./{dashboards.FOLDER.relative_to(ROOT)}"
    source = yaml.safe_load((FOLDER / "datasource.yaml").read_text(encoding="utf-8"))["datasources"][0]
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        f"http://prometheus:{port}",
        True,
    )


def test_no_image_is_the_latest() -> None:
    for service in SERVICES.values():
        assert re.search(r":v?\d", service["image"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path")
def test_promtool_reads_the_configuration(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_text(
        text.replace("/etc/prometheus/rules.yaml", str(FOLDER.parent / "rules.yaml")), encoding="utf-8"
    )
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not on the path")
def test_compose_itself_accepts_the_file() -> None:
    command = ["docker-compose", "-f", str(ROOT / "docker-compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
