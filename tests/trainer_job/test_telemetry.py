"""The job's metrics: read from the results folder, shown on a page, kept in a file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from trainer_job import telemetry
from trainer_job.errors import ConfigError
from trainer_job.files import write_json
from trainer_job.launch import Devices
from trainer_job.units import Layout, Unit, write_status

RUNNING, DONE, WAITING = Unit("moe", 0), Unit("none", 0), Unit("moe:shuffled", 1)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(results=tmp_path / "results", logs=tmp_path / "logs")
    write_status(layout.unit(RUNNING), "running")
    standing = {
        "step": 3, "planned_steps": 10, "epoch": 0.3, "last_step": 50.0, "last_checkpoint": 40.0,
        "loss": 0.5, "grad_norm": None,
        "tokens": {"real": 90, "padding": 10}, "seconds": {"train": 2.0, "evaluate": 1.0, "save": 0.5},
        "validation": {"accuracy": 0.75, "macro_f1": 0.5, "per_domain": {"imdb": 0.25, "films": None}},
    }  # fmt: skip
    write_json(layout.unit(RUNNING) / telemetry.STANDING, standing)
    write_status(layout.unit(DONE), "complete")
    write_json(
        layout.unit(DONE) / "unit.json",
        {"test": {"accuracy": 0.9, "macro_f1": 0.8}, "seconds": {"total": 12.0}},
    )
    write_json(layout.unit(DONE) / telemetry.STANDING, standing)  # of its training, which is over
    write_json(layout.record, {"selected": {"variant": "none", "seed": 0}})
    return layout


@pytest.fixture
def collector(layout: Layout) -> telemetry.SweepCollector:
    return telemetry.SweepCollector(layout, [RUNNING, DONE, WAITING], Devices("cpu", 2), clock=lambda: 45.0)


def samples(collector: telemetry.SweepCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


MOE = {"variant": "moe", "seed": "0"}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("units", {"state": "running"}, 1),
        ("units", {"state": "complete"}, 1),
        ("units", {"state": "pending"}, 1),
        ("units", {"state": "failed"}, 0),
        ("selected", {"variant": "none", "seed": "0"}, 1),
        ("step", MOE, 3),
        ("planned_steps", MOE, 10),
        ("loss", MOE, 0.5),
        ("gradient_norm", MOE, None),
        ("last_step_timestamp_seconds", MOE, 50),
        ("last_checkpoint_timestamp_seconds", MOE, 45),  # of a former life: what it cost is over
        ("start_timestamp_seconds", {}, 45),
        ("tokens_total", {**MOE, "kind": "padding"}, 10),
        ("phase_seconds_total", {**MOE, "phase": "save"}, 0.5),
        ("validation_macro_f1", MOE, 0.5),
        ("validation_domain_macro_f1", {**MOE, "domain": "imdb"}, 0.25),
        ("validation_domain_macro_f1", {**MOE, "domain": "films"}, None),
        ("test_accuracy", {"variant": "none", "seed": "0"}, 0.9),
        ("unit_seconds", {"variant": "none", "seed": "0"}, 12),
        ("step", {"variant": "none", "seed": "0"}, None),
    ],
)
def test_each_figure_is_read_from_its_file(
    collector: telemetry.SweepCollector, name: str, labels: dict[str, str], value: float | None
) -> None:
    assert samples(collector).get_sample_value(f"stratified_train_{name}", labels) == value


def test_an_empty_folder_has_units_and_no_figures(tmp_path: Path) -> None:
    layout = Layout(results=tmp_path / "results", logs=tmp_path / "logs")
    found = samples(telemetry.SweepCollector(layout, [RUNNING], Devices("cpu", 1)))
    assert found.get_sample_value("stratified_train_units", {"state": "pending"}) == 1
    assert found.get_sample_value("stratified_train_step", MOE) is None


def test_the_page_is_there_inside_the_block_and_gone_after_it(collector: telemetry.SweepCollector) -> None:
    with telemetry.exposed(collector, "127.0.0.1:0") as port:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        with pytest.raises(ConfigError, match=rf"--metrics {port}: .*name another address"):
            telemetry.exposed(collector, str(port)).__enter__()
    names = {family.name for family in text_string_to_metric_families(page)}
    assert {"stratified_train_info", "stratified_train_step", "process_resident_memory_bytes"} <= names
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_without_an_address_nothing_listens(collector: telemetry.SweepCollector) -> None:
    with telemetry.exposed(collector, None) as port:
        assert port == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::]:1", ("::", 1)),
        (":9464", ("127.0.0.1", 9464)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert telemetry.parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "9464x", "host:", "70000", "::1:9464"])
def test_another_text_is_refused_with_its_cure(text: str) -> None:
    with pytest.raises(ConfigError, match="write 9464"):
        telemetry.parse_address(text)


def test_the_file_holds_the_sweep_and_not_the_process(
    collector: telemetry.SweepCollector, layout: Layout
) -> None:
    telemetry.write_record(collector)
    text = (layout.results / "metrics.prom").read_text()
    assert 'stratified_train_test_macro_f1{seed="0",variant="none"} 0.8' in text
    assert "process_" not in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path")
def test_promtool_finds_no_fault_in_names_and_helps(
    collector: telemetry.SweepCollector, layout: Layout
) -> None:
    telemetry.write_record(collector)
    text = (layout.results / "metrics.prom").read_text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
